"""Bundles that Optimum's ORTModel classes and sentence-transformers open as they stand.

The same folder is a bundle that `serve` answers from: the manifest points at the files that Optimum
looks for. What it asks for was read in optimum-onnx 0.1.0, `optimum/onnxruntime/modeling*.py`:

- `model.onnx`; of encoder-decoders `encoder_model.onnx`, `decoder_model.onnx` for a first call,
  which takes the encoder's states and has no past, and `decoder_with_past_model.onnx`;
- weights beside it in a file called as the first graph with "_data" behind, which it fetches where
  the folder lies on a hub;
- `config.json` of a model type that transformers knows, `generation_config.json`.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from export.errors import ExportError, VerificationError
from export.graphs import (
    BATCH,
    PAST,
    SEQUENCE,
    Graph,
    Tensor,
    encode_graph,
    first_step_graph,
    forward_graph,
    step_graph,
)
from export.onnx import Converted
from export.tolerances import TOLERANCES
from serve.bundle.selfcheck import MEASURES
from serve.runtime.session import Session
from zoo.checkpoints.save import family_of, name_inputs, written_configs
from zoo.checkpoints.sentences import write_sentences
from zoo.errors import ConfigError
from zoo.tasks import TaskModel
from zoo.text.json_file import write_json

HEADS, HEAD_DIM = "num_key_value_heads", "head_dim"


@dataclasses.dataclass(frozen=True)
class Placed:
    """A graph and its file.

    Attributes:
        graph: The graph.
        file: Its file's name.
        served: It is one of the manifest's; else it is there for the client alone.
        declared: Changes what the converted graph says of itself.
    """

    graph: Graph
    file: str
    served: bool = True
    declared: Callable[[Converted], Converted] = lambda converted: converted


def check(model: TaskModel, target: str) -> None:
    """Refuses what Optimum could not run.

    Raises:
        ExportError: The target's decoders work in place on one buffer, which Optimum does not.
    """
    if model.generates and target != "portable":
        raise ExportError(
            f"layout 'optimum' with target = {target!r}: Optimum passes a cache that grows, which "
            "only target 'portable' has; choose it"
        )


def placed(model: TaskModel) -> list[Placed]:
    """The graphs of a bundle in this layout."""
    if model.task == "sentence-similarity":
        return [Placed(_embedding_graph(model), "model.onnx")]
    if not model.generates:
        return [Placed(forward_graph(model), "model.onnx")]
    step = step_graph(model, "grow")
    if model.architecture == "decoder":
        return [Placed(step, "model.onnx", declared=_any_empty_past)]
    return [
        Placed(encode_graph(model), "encoder_model.onnx"),
        Placed(first_step_graph(model), "decoder_model.onnx", served=False),
        Placed(_by_layer(step), "decoder_with_past_model.onnx"),
    ]


def _embedding_graph(model: TaskModel) -> Graph:
    """The sentence's vector, and beside it the tokens' states: sentence-transformers pools them
    itself.
    """
    graph = forward_graph(model)
    config: Any = model.config
    head: Any = model.head
    stack: Any = model.encoder or model.decoder
    states = Tensor("last_hidden_state", "float32", (BATCH, SEQUENCE, config.output_dim))

    def call(feeds: dict[str, Any]) -> dict[str, Any]:
        found, _, _ = stack(
            feeds["input_ids"],
            attention_mask=feeds["attention_mask"],
            token_type_ids=feeds.get("token_type_ids"),
        )
        return {
            states.name: tf.cast(found, "float32"),
            "sentence_embedding": head(found, attention_mask=feeds["attention_mask"]),
        }

    return dataclasses.replace(graph, outputs=(states, *graph.outputs), call=call)


def _by_layer(step: Graph) -> Graph:
    """The cached step with its past ordered layer by layer: Optimum feeds it by position."""

    def order(tensor: Tensor) -> tuple[int, int, str]:
        parts = tensor.name.split(".")
        if len(parts) != 4:
            return (-1, 0, "")
        return (int(parts[1]), int(parts[2] == "encoder"), parts[3])

    return dataclasses.replace(step, inputs=tuple(sorted(step.inputs, key=order)))


def _any_empty_past(converted: Converted) -> Converted:
    """Leaves the sizes of the past's heads open.

    Optimum makes the empty past of a first call from the config, and for some model types takes
    the heads of the queries for those of the keys, or `hidden_size / num_attention_heads` for a
    `head_dim` that is another.
    """
    open_axes = {1: HEADS, 3: HEAD_DIM}

    def opened(tensor: Tensor) -> Tensor:
        if PAST not in tensor.axes:
            return tensor
        axes = tuple(open_axes.get(i, axis) for i, axis in enumerate(tensor.axes))
        return dataclasses.replace(tensor, axes=axes)

    graph = converted.graph
    inputs = tuple(map(opened, graph.inputs))
    changed = {new.name for new, old in zip(inputs, graph.inputs, strict=True) if new != old}
    for value in converted.proto.graph.input:
        if value.name in changed:
            for i, name in open_axes.items():
                value.type.tensor_type.shape.dim[i].dim_param = name
    return dataclasses.replace(converted, graph=dataclasses.replace(graph, inputs=inputs))


def weights_file(places: list[Placed]) -> str:
    """The name of the external data."""
    return f"{places[0].file}_data"


def write_configs(model: TaskModel, folder: Path, max_new_tokens: int) -> None:
    """`config.json` and `generation_config.json` of the model's family; for sentence embeddings
    what sentence-transformers reads too. The tokenizer's files, where there are any, stand already.

    Raises:
        ExportError: No family can say the model's facts.
    """
    try:
        configs = written_configs(model, family_of(model))
    except ConfigError as error:
        raise ExportError(
            f"layout 'optimum' needs a config.json that transformers understands: {error}. "
            "Layout 'bundle' needs none"
        ) from error
    generation = configs.get("generation_config.json")
    if generation is not None and "max_length" not in generation:
        decoder: Any = model.decoder
        generation.setdefault("max_new_tokens", min(max_new_tokens, decoder.length))
    for name, values in configs.items():
        write_json(folder / name, values)
    name_inputs(model, folder)
    if model.task == "sentence-similarity":
        write_sentences(model, folder)


def verify(
    folder: Path,
    model: TaskModel,
    reference: dict[str, np.ndarray],
    measure: str = "largest",
    tolerance: float = TOLERANCES["float32"],
) -> None:
    """Compares what only clients read with Keras: the graph of a first call, and the tokens' states
    beside a sentence's vector. `serve` replays all else.

    Args:
        folder: Where the graphs lie.
        model: The model in float32.
        reference: As `export.reference.reference_values` gives them.
        measure: A name in `serve.bundle.selfcheck.MEASURES`.
        tolerance: Largest difference allowed.

    Raises:
        VerificationError: They differ.
    """
    for place in placed(model):
        if place.served and model.task != "sentence-similarity":
            continue
        session = Session(folder / place.file)
        for case in sorted({key.partition("/")[0] for key in reference} - {"tokenizer"}):
            feeds = _feeds(model, case, reference)
            expected, found = place.graph.call(feeds), session.run(feeds)
            for name, value in found.items():
                gap = MEASURES[measure](value, np.asarray(expected[name]))
                if not gap <= tolerance:
                    raise VerificationError(
                        f"{place.file}: {name} differs from Keras by {gap:.2g} in {case!r}, "
                        f"tolerance {tolerance:.2g}"
                    )


def _feeds(model: TaskModel, case: str, reference: dict[str, np.ndarray]) -> dict[str, Any]:
    """What a case feeds to a graph that is not in the manifest, or to the only one."""
    parts = {
        key.rpartition("/")[2]: value
        for key, value in reference.items()
        if key.startswith((f"{case}/sequence/", f"{case}/model/inputs/"))
    }
    if not model.generates:
        return parts
    states, _ = model.encode(parts["input_ids"], parts["attention_mask"])
    ids = parts["decoder_input_ids"]
    return {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "encoder_attention_mask": parts["attention_mask"],
        "encoder_hidden_states": np.asarray(tf.cast(states, "float32")),
    }
