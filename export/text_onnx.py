"""`to_text_onnx`: one ONNX file that takes strings and answers with labels or vectors.

Tokenizer, weights and head lie in the graph; onnxruntime runs it with the library of custom
operators that onnxruntime-extensions brings.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from export.errors import ExportError, VerificationError
from export.facts import problem_type
from export.graphs import BATCH, Graph, Tensor, forward_graph
from export.lowering import MICROSOFT, TARGETS
from export.models import prepared, tokenizer_of
from export.onnx import Converted, convert
from export.staging import staged_file
from export.text_graph.corpus import pairs, texts
from export.text_graph.tokenizer import encode
from export.text_graph.wires import CONTRIB, ML, Wire, Wires
from export.tolerances import TOLERANCES
from serve.bundle.selfcheck import difference
from serve.pipelines.encoder import class_scores
from zoo.heads import EmbeddingHead
from zoo.tasks import TaskModel

LIMIT = 2**31 - 2**20
"""Bytes of a file: Protocol Buffers' limit, with room for the graph beside the weights."""
OPSET = 18
TASKS = ("text-classification", "sentence-similarity", "feature-extraction")
INPUTS = ("text", "pair")


def to_text_onnx(
    model: Any,
    out: str | os.PathLike[str],
    *,
    tokenizer: Any = None,
    target: str = "onnxruntime",
    pair: bool = False,
    pooling: str = "mean",
    normalize: bool = True,
    verify: bool = True,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Exports an encoder as one ONNX file from strings to answers.

    Input `text`, strings [batch_size]; with `pair` a second, `pair`. Outputs of text-classification
    are `label`, strings [batch_size], and `scores` [batch_size, labels], probabilities as `serve`
    gives them; of sentence-similarity and feature-extraction `sentence_embedding`. Texts longer
    than the model reads are cut as `serve` cuts them.

    Args:
        model: A `zoo.TaskModel` of one of `TASKS`.
        out: The file to make.
        tokenizer: A `zoo.text.Tokenizer`; by default the model's own.
        target: Operators of the model itself: "onnxruntime" or "portable". The tokenizer's part is
            the same in both.
        pair: The model reads two texts (text-classification).
        pooling: How feature-extraction makes one vector of the tokens': "mean", "cls", "max" or
            "last".
        normalize: feature-extraction's vectors get length 1.
        verify: Compare ids with the `tokenizers` library and values with Keras before the file
            appears.
        overwrite: Replace `out` where it exists.
        progress: Called with what is being done.

    Returns:
        What verification measured; empty without it.

    Raises:
        ExportError: The task or a part of the tokenizer has no exact twin, the file would be too
            large, or its ids or values are not those of the originals; `out` is then untouched.
    """
    say = progress or (lambda text: None)
    if target not in TARGETS:
        raise ExportError(f"target = {target!r}: expected one of {sorted(TARGETS)}")
    model = prepared(model)
    tokenizer = tokenizer_of(model, tokenizer)
    _check(model, tokenizer, pair)
    _require_library()
    names = INPUTS[: 1 + pair]
    longest = model.config.max_length
    longest = min(longest, tokenizer.model_max_length or longest)
    with staged_file(out, overwrite) as path:
        say("writing the tokenizer as a graph")
        wires = Wires()
        ids = encode(
            wires,
            [Wire(wires, name) for name in names],
            tokenizer,
            max_length=longest,
            pad=model.config.pad_token_id or 0,
        )
        say("converting the model")
        graph = _pooled(model, pooling, normalize)
        converted = convert(model, graph, target, OPSET)
        proto = _merged(wires, ids, converted, model, names)
        helper.set_model_props(proto, _facts(model, longest))
        say("writing the file")
        _write(proto, converted, path)
        if not verify:
            return {}
        say("verifying ids and values")
        report = {"ids": _verify_ids(wires, ids, names, tokenizer, longest)}
        report |= _verify_values(path, model, graph, tokenizer, pair, longest)
    return report


def _check(model: TaskModel, tokenizer: Any, pair: bool) -> None:
    if model.task not in TASKS:
        raise ExportError(
            f"task {model.task!r} answers about tokens, for which a file from strings has no "
            f"outputs: expected one of {list(TASKS)}; export it with to_onnx"
        )
    if tokenizer is None:
        raise ExportError("the model has no tokenizer: give tokenizer=")
    if pair and model.task != "text-classification":
        raise ExportError(f"pair = True: {model.task} reads one text, text-classification two")
    size = sum(int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for v in model.weights)
    if size > LIMIT:
        raise ExportError(
            f"the weights take {size / 2**30:.2f} GiB; one ONNX file holds at most 2 GiB: export "
            "with to_onnx, which keeps weights in a file of their own"
        )


def _require_library() -> None:
    try:
        import onnxruntime_extensions  # noqa: F401
    except ImportError as error:
        raise ExportError(
            "onnxruntime-extensions is not installed: pip install onnxruntime-extensions"
        ) from error


def _pooled(model: TaskModel, pooling: str, normalize: bool) -> Graph:
    """The model's graph, which makes one vector per text of feature-extraction's states."""
    graph = forward_graph(model)
    if model.task != "feature-extraction":
        return graph
    head = EmbeddingHead(pooling=pooling, normalize=normalize)
    output = Tensor(
        "sentence_embedding", "float32", (BATCH, model.config.output_dim or model.config.hidden_dim)
    )

    def call(feeds: dict[str, Any]) -> dict[str, Any]:
        states = graph.call(feeds)["last_hidden_state"]
        return {output.name: head(states, attention_mask=feeds["attention_mask"])}

    return dataclasses.replace(graph, outputs=(output,), call=call)


def _head(after: Wires, model: TaskModel) -> list[onnx.ValueInfoProto]:
    """Writes what follows the model's own outputs; returns the file's outputs."""
    info = helper.make_tensor_value_info
    if model.task != "text-classification":
        return [info("sentence_embedding", TensorProto.FLOAT, [BATCH, model.config.output_dim])]
    labels = list(model.labels or ())
    logits = Wire(after, "logits")
    kind = problem_type(model)
    if kind == "regression":
        scores = logits
    elif len(labels) == 1 or kind == "multi_label_classification":
        scores = after.op("Sigmoid", logits)
    else:
        scores = after.op("Softmax", logits, axis=-1)
    best = after.op("ArgMax", logits, axis=-1, keepdims=0)
    for name, value in (("label", after.take(after.strings(labels), best)), ("scores", scores)):
        after.nodes.append(helper.make_node("Identity", [value.name], [name], name))
    return [
        info("label", TensorProto.STRING, [BATCH]),
        info("scores", TensorProto.FLOAT, [BATCH, len(labels)]),
    ]


def _strings(names: Sequence[str]) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, TensorProto.STRING, [BATCH]) for name in names]


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    opsets = [("", OPSET), (CONTRIB, 1), (ML, 3), (MICROSOFT, 1)]
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(*opset) for opset in opsets],
        producer_name="keras-text-zoo",
        ir_version=9,
    )


def _merged(
    wires: Wires,
    ids: dict[str, Wire],
    converted: Converted,
    model: TaskModel,
    names: Sequence[str],
) -> onnx.ModelProto:
    """Tokenizer, model and head as one graph, still without the weights."""
    body = converted.proto.graph
    feeds = [
        helper.make_node("Identity", [ids[tensor.name].name], [tensor.name], tensor.name)
        for tensor in converted.graph.inputs
    ]
    after = Wires("answer")
    outputs = _head(after, model)
    graph = helper.make_graph(
        [*wires.nodes, *feeds, *body.node, *after.nodes],
        "model",
        _strings(names),
        outputs,
        [*wires.shared.initializers, *body.initializer, *after.shared.initializers],
    )
    return _model(graph)


def _facts(model: TaskModel, longest: int) -> dict[str, str]:
    """What the file says of itself in `metadata_props`."""
    facts: dict[str, Any] = {"task": model.task, "max_length": longest}
    if model.labels is not None:
        facts["labels"] = model.labels
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in facts.items()
    }


def _write(proto: onnx.ModelProto, converted: Converted, path: Path) -> None:
    """Puts the weights in and writes the file."""
    for name, variable in sorted(converted.weights.items()):
        array = keras.ops.convert_to_numpy(variable)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    size = proto.ByteSize()
    if size > LIMIT:
        raise ExportError(
            f"the file would take {size / 2**30:.2f} GiB, an ONNX file holds at most 2 GiB: export "
            "with to_onnx, which keeps weights in a file of their own"
        )
    path.write_bytes(proto.SerializeToString(deterministic=True))


def session(model: bytes | str | os.PathLike[str]) -> onnxruntime.InferenceSession:
    """An onnxruntime session with the custom operators, for a file or its bytes."""
    from onnxruntime_extensions import get_library_path

    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(get_library_path())
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = model if isinstance(model, bytes) else os.fspath(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def tokenizer_session(
    tokenizer: Any, *, max_length: int, pad: int = 0, pair: bool = False
) -> onnxruntime.InferenceSession:
    """A session of a tokenizer's graph alone, for comparisons: from text(s) to ids."""
    wires = Wires()
    names = INPUTS[: 1 + pair]
    inputs = [Wire(wires, name) for name in names]
    ids = encode(wires, inputs, tokenizer, max_length=max_length, pad=pad)
    return _ids_session(wires, ids, names)


def _ids_session(
    wires: Wires, ids: dict[str, Wire], names: Sequence[str]
) -> onnxruntime.InferenceSession:
    ends = [helper.make_node("Identity", [wire.name], [name]) for name, wire in ids.items()]
    shape = [BATCH, "sequence_length"]
    outputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ids]
    graph = helper.make_graph(
        [*wires.nodes, *ends], "tokenizer", _strings(names), outputs, wires.shared.initializers
    )
    return session(_model(graph).SerializeToString())


def compare_ids(
    run: onnxruntime.InferenceSession,
    tokenizer: Any,
    lines: Sequence[str],
    others: Sequence[str] | None,
    max_length: int | None,
    batch: int = 256,
) -> int:
    """Compares a tokenizer's graph with the `tokenizers` library; returns the number of lines.

    Raises:
        VerificationError: A line has other ids, token types or another length.
    """
    for at in range(0, len(lines), batch):
        feeds = {"text": list(lines[at : at + batch])}
        if others is not None:
            feeds["pair"] = list(others[at : at + batch])
        wanted = tokenizer.encode_raw(feeds["text"], feeds.get("pair"), max_length)
        found = run.run(
            ["input_ids", "attention_mask", "token_type_ids"],
            {name: np.array(value, dtype=object) for name, value in feeds.items()},
        )
        for text, encoding, ids, mask, types in zip(feeds["text"], wanted, *found, strict=True):
            size = int(mask.sum())
            if ids[:size].tolist() != encoding.ids or types[:size].tolist() != encoding.type_ids:
                raise VerificationError(
                    f"the graph's ids of {text!r:.100} are {ids[:size].tolist()[:20]}, those of "
                    f"the tokenizers library {encoding.ids[:20]}"
                )
    return len(lines)


def _verify_ids(
    wires: Wires, ids: dict[str, Wire], names: Sequence[str], tokenizer: Any, longest: int
) -> int:
    lines = texts(tokenizer)
    others = pairs(lines) if len(names) == 2 else None
    return compare_ids(_ids_session(wires, ids, names), tokenizer, lines, others, longest)


def _verify_values(
    path: Path, model: TaskModel, graph: Graph, tokenizer: Any, pair: bool, longest: int
) -> dict[str, Any]:
    """Runs the file on texts and compares what it says with Keras on the same texts' ids."""
    lines = texts(tokenizer)[:24]
    others = pairs(lines) if pair else None
    run = session(path)
    feeds = {"text": np.array(lines, dtype=object)}
    if others is not None:
        feeds["pair"] = np.array(others, dtype=object)
    names = [output.name for output in run.get_outputs()]
    found = dict(zip(names, run.run(names, feeds), strict=True))
    rows = {name: value.astype("int64") for name, value in
            tokenizer(lines, others, max_length=longest).items()}  # fmt: skip
    rows.setdefault("token_type_ids", np.zeros_like(rows["input_ids"]))
    rows["input_ids"] = np.where(
        rows["attention_mask"] == 1, rows["input_ids"], model.config.pad_token_id or 0
    )
    outputs = graph.call({tensor.name: rows[tensor.name] for tensor in graph.inputs})
    values = np.asarray(outputs[graph.outputs[0].name])
    if model.task == "text-classification":
        name, expected = "scores", class_scores(values, problem_type(model))
        labels = np.array(model.labels, dtype=object)
        top = np.sort(expected, axis=-1)
        clear = np.ones(len(lines), bool)
        if expected.shape[-1] > 1:
            clear = top[:, -1] - top[:, -2] > 1e-3
        if (labels[expected.argmax(-1)] != found["label"])[clear].any():
            raise VerificationError("the file gives other labels than Keras")
    else:
        name, expected = "sentence_embedding", values
    gap, tolerance = difference(found[name], expected), TOLERANCES["float32"]
    if not gap <= tolerance:
        raise VerificationError(
            f"the file's {name} differ from Keras by {gap:.2g}, tolerance {tolerance:.2g}"
        )
    return {"largest": gap, "tolerance": tolerance, "texts": len(lines)}
