"""How far each layer of a bundle's graphs is from the layer of the Keras model it came from.

Keras' layers are recorded while the model computes held-out inputs; the graphs run through ONNX
Runtime with the tensors of the same layers as further outputs. What the layers are given is what
the layers before them computed, so a difference shows where it arises and how it is carried on.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from export.graphs import KEEP, forward_graph
from export.report.scopes import Scope, scope_of_tensor
from serve.bundle.manifest import Manifest
from zoo.layers.linear import Linear
from zoo.layers.norm import Norm
from zoo.tasks import TaskModel

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class LayerDifference:
    """One call of a layer.

    Attributes:
        path: The layer's path below the model.
        call: Which of its calls, from 0.
        largest: Largest absolute difference.
        relative: Root mean square of the difference, as a share of that of Keras' values.
        order: Its place among all calls.
    """

    path: str
    call: int
    largest: float
    relative: float
    order: int = 0


def layer_differences(
    model: TaskModel,
    manifest: Manifest,
    graphs: Sequence[str] | None = None,
    seed: int = 11,
    rows: int = 3,
    length: int = 24,
) -> list[LayerDifference]:
    """Compares every linear map and norm that the graphs still have as such, and the outputs.

    Args:
        model: The Keras model, in float32.
        manifest: The bundle.
        graphs: The graphs that together compute the model; by default those that every bundle has.
        seed: Of the inputs' ids.
        rows: Texts, of different lengths.
        length: Tokens of the longest.

    Returns:
        The layers in the order in which Keras calls them, then the model's outputs.
    """
    feeds = _inputs(model, seed, rows, length)
    layers = _layers(model)
    with _recorded(layers) as records:
        outputs = forward_graph(model).call(feeds)
    expected = {
        key: [np.asarray(value, "float32") for value, _ in calls] for key, calls in records.items()
    }
    results = {name: np.asarray(value, "float32") for name, value in outputs.items()}
    biased = {path for path, layer in layers.items() if getattr(layer, "bias", None) is not None}
    found, finals = _run_graphs(manifest, graphs, feeds, expected, biased)
    mask = np.asarray(feeds["attention_mask"])
    crossed = model.architecture == "encoder-decoder"  # the decoder's rows are not padded
    rows_found: list[LayerDifference] = []
    for path, values in expected.items():
        padded = None if crossed and path.startswith(("decoder/", "head/")) else mask
        for call, value in enumerate(values):
            given = found.get((path, call))
            if given is not None and given.size == value.size:
                row = _compare(path, call, given.reshape(value.shape), value, padded)
                rows_found.append(replace(row, order=records[path][call][1]))
    rows_found.sort(key=lambda row: row.order)
    for name, value in results.items():
        if name in finals and finals[name].shape == value.shape:
            padded = None if crossed else mask
            rows_found.append(_compare(name, 0, finals[name], value, padded))
    return rows_found


def along_blocks(
    rows: Sequence[LayerDifference],
) -> dict[str, list[tuple[str, LayerDifference]]]:
    """The residual stream behind each block, for encoder and decoder: (block's number, difference).

    Where blocks begin with a norm, the stream is seen as the next norm leaves it; where they end
    with one, as that leaves it. "in" is what the first block is given.
    """
    sides: dict[str, list[tuple[str, LayerDifference]]] = {}
    for side in ("encoder", "decoder"):
        points = [row for row in rows if row.path.startswith(f"{side}/") and _marks(row.path)]
        groups: list[tuple[tuple[str | None, int], list[LayerDifference]]] = []
        for row in points:
            key = (_block(row.path), row.call)
            if not groups or groups[-1][0] != key:
                groups.append((key, []))
            groups[-1][1].append(row)
        found: list[tuple[str, LayerDifference]] = []
        count = 0
        for at, ((block, _), group) in enumerate(groups):
            following = groups[at + 1][1][0] if at + 1 < len(groups) else None
            if block is None:
                if not count:
                    found = [("in", group[-1])]
                continue
            if not found and _is_norm(group[0].path):
                found.append(("in", group[0]))
            count += 1
            end = group[-1]
            if not _is_norm(end.path) and following is not None and _is_norm(following.path):
                end = following
            found.append((str(count), end))
        if count:
            sides[side] = found
    return sides


def _block(path: str) -> str | None:
    return path.split("/")[1] if "/block_" in path else None


def _is_norm(path: str) -> bool:
    return path.rpartition("/")[2].endswith("norm")


def _marks(path: str) -> bool:
    """Whether a layer stands in the residual stream: norms, and maps that lead back into it."""
    return _is_norm(path) or path.endswith(("attention/output", "feed_forward/down"))


def _inputs(model: TaskModel, seed: int, rows: int, length: int) -> dict[str, Any]:
    config: Any = model.config
    rng = np.random.default_rng(seed)
    longest = min(length, config.max_length, getattr(config, "max_target_length", length))
    lengths = np.maximum(1, np.linspace(longest, max(1, longest // 3), rows).astype(int))
    mask = (np.arange(longest) < lengths[:, None]).astype("int64")
    ids = rng.integers(1, config.vocab_size, mask.shape) * mask
    feeds: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    if config.token_types:
        feeds["token_type_ids"] = rng.integers(0, config.token_types, ids.shape) * mask
    if "decoder_input_ids" in model.required_inputs:
        feeds["decoder_input_ids"] = rng.integers(1, config.vocab_size, (rows, longest))
    return feeds


def _layers(model: TaskModel) -> dict[str, Any]:
    """The model's linear maps and norms that have weights, by their path below it."""
    return {
        layer.weights[0].path.split("/", 1)[-1].rpartition("/")[0]: layer
        for layer in model._flatten_layers()
        if isinstance(layer, Linear | Norm) and layer.weights
    }


@contextlib.contextmanager
def _recorded(layers: Mapping[str, Any]) -> Iterator[dict[str, list[tuple[Any, int]]]]:
    """What each layer returns, call by call, and which of all calls that was."""
    records: dict[str, list[tuple[Any, int]]] = {}

    def watch(path: str, layer: Any) -> None:
        original = layer.call

        def call(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            order = sum(map(len, records.values()))
            value = result[0] if isinstance(layer, Norm) else result
            records.setdefault(path, []).append((value, order))
            return result

        layer.__dict__["call"] = call

    for path, layer in layers.items():
        watch(path, layer)
    try:
        yield records
    finally:
        for layer in layers.values():
            layer.__dict__.pop("call", None)


def _run_graphs(
    manifest: Manifest,
    graphs: Sequence[str] | None,
    feeds: dict[str, Any],
    expected: dict[str, list[Array]],
    biased: set[str],
) -> tuple[dict[tuple[str, int], Array], dict[str, Array]]:
    """({(layer, call): values}, the model's outputs) of the bundle's graphs."""
    found: dict[tuple[str, int], Array] = {}
    finals: dict[str, Array] = {}
    passed: dict[str, Any] = {}
    for graph in graphs or [g for g in ("encoder", "model", "decoder") if g in manifest.graphs]:
        spec = manifest.graphs[graph]
        path = manifest.path(spec.file)
        proto = onnx.load(path, load_external_data=False)
        names = _tensors_of_layers(proto, expected, biased)
        with _exposed(path, proto, list(names.values())) as session:
            given = _feeds(manifest, graph, feeds, passed)
            kept = [v.name for v in session.get_outputs() if not v.name.startswith("present.")]
            memory = [v.name for v in session.get_outputs() if ".encoder." in v.name]
            values = dict(zip(kept + memory, session.run(kept + memory, given), strict=True))
        for key, name in names.items():
            found[key] = np.asarray(values[name], "float32")
        finals |= {
            tensor.name: np.asarray(values[tensor.name], "float32")
            for tensor in spec.outputs
            if tensor.name in values
        }
        passed |= {name.replace("present.", "past_key_values."): values[name] for name in memory}
    return found, finals


def _tensors_of_layers(
    proto: onnx.ModelProto, expected: Mapping[str, Any], biased: set[str]
) -> dict[tuple[str, int], str]:
    """The tensor with which each call of a layer ends: the last of its scope that others read.

    A map's bias may have moved into the operator behind it; what it leaves is then not what the
    layer returns, and it is left out.
    """
    graph = proto.graph
    outputs = {value.name for value in graph.output}
    scopes: dict[str, str] = {}
    with_bias: set[str] = set()
    for node in graph.node:
        scope = scope_of_tensor(node.output[0])
        if scope is None and node.output[0] in outputs:
            scope = Scope(node.name.rpartition("/")[0])
        if scope is None or scope.path not in expected:
            continue
        scopes[node.output[0]] = scope.raw
        if f"{scope.path}/bias" in node.input:
            with_bias.add(node.output[0])
    left = set(outputs)
    for node in graph.node:
        raw = scopes.get(node.output[0])
        left |= {name for name in node.input if scopes.get(name) != raw}
    calls: dict[str, dict[str, str]] = {}
    for output, raw in scopes.items():
        if output in left:
            calls.setdefault(Scope(raw).path, {})[raw] = output
    return {
        (path, call): output
        for path, by_call in calls.items()
        for call, output in enumerate(by_call.values())
        if path not in biased or output in with_bias
    }


@contextlib.contextmanager
def _exposed(
    path: Path, proto: onnx.ModelProto, names: list[str]
) -> Iterator[onnxruntime.InferenceSession]:
    """The graph with further outputs, over the weights where they lie."""
    known = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in known)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(path.parent.resolve())
    )
    yield onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _feeds(
    manifest: Manifest, graph: str, feeds: dict[str, Any], passed: dict[str, Any]
) -> dict[str, Any]:
    """What a graph asks for: the texts, an empty cache, the encoder's keys and values."""
    spec, given = manifest.graphs[graph], {}
    target = graph == "decoder"
    rows = len(feeds["input_ids"])
    for tensor in spec.inputs:
        name = tensor.name
        if name in passed:
            given[name] = passed[name]
        elif name.startswith("past_key_values."):
            shape = [
                axis if isinstance(axis, int) else rows if axis == "batch_size" else 0
                for axis in tensor.shape
            ]
            given[name] = np.zeros(shape, tensor.dtype)
        elif name == KEEP:
            given[name] = np.array(0)
        elif name == "encoder_attention_mask":
            given[name] = feeds["attention_mask"]
        elif target and name == "input_ids":
            given[name] = feeds["decoder_input_ids"]
        elif target and name == "attention_mask":
            given[name] = np.ones_like(feeds["decoder_input_ids"])
        else:
            given[name] = feeds[name]
    return given


def _compare(
    path: str, call: int, found: Array, expected: Array, mask: Array | None
) -> LayerDifference:
    """Positions of padding do not count: nothing says what is computed for them."""
    if mask is not None and expected.shape[:2] == mask.shape:
        found, expected = found[mask == 1], expected[mask == 1]
    gap = found.astype("float64") - expected
    size = float(np.sqrt(np.mean(np.square(expected, dtype="float64"))))
    relative = float(np.sqrt(np.mean(np.square(gap)))) / max(size, 1e-12)
    return LayerDifference(path, call, float(np.abs(gap).max(initial=0.0)), relative)
