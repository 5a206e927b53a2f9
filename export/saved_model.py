"""`to_saved_model`: a SavedModel with the signatures that the ONNX graphs have, loadable with
TensorFlow alone.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from export.errors import VerificationError
from export.graphs import KEEP, Graph, encode_graph, forward_graph, step_graph
from export.models import prepared, tokenizer_of
from export.reference import reference_values
from export.staging import staged
from export.tolerances import TOLERANCES
from serve.selfcheck import difference
from zoo.backbones.config import config_to_mapping
from zoo.tasks import TaskModel
from zoo.text.json_file import write_json

EXTRA = "assets.extra"


def signatures_of(model: TaskModel) -> dict[str, Graph]:
    """`serving_default` is the whole model; generating models add `step`, and `encode` where they
    have an encoder.
    """
    graphs = {"serving_default": forward_graph(model)}
    if model.generates:
        graphs["step"] = step_graph(model, "grow")
        if model.encoder is not None:
            graphs["encode"] = encode_graph(model)
    return graphs


def to_saved_model(
    model: Any,
    out: str | os.PathLike[str],
    *,
    tokenizer: Any = None,
    verify: bool = True,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Exports a model as a SavedModel; `tf.saved_model.load` reads it without this project.

    Inputs and outputs bear the names that the ONNX graphs have. Ids are int64; `step` returns the
    logits of all its positions. The tokenizer and the config lie in `assets.extra/`, with what
    verification measured.

    Args:
        model: A `zoo.TaskModel`.
        out: The folder to make.
        tokenizer: By default the model's own.
        verify: Load it again and compare it with Keras before the folder appears.
        overwrite: Replace `out` where it exists.
        progress: Called with what is being done.

    Returns:
        What verification measured; empty without it.

    Raises:
        ExportError: The export cannot be made, or its values are not those of Keras; `out` is then
            untouched.
    """
    say = progress or (lambda text: None)
    model = prepared(model)
    tokenizer = tokenizer_of(model, tokenizer)
    report: dict[str, Any] = {}
    with staged(out, overwrite) as folder:
        say("tracing signatures")
        module = tf.Module()
        module.weights = [variable.value for variable in model.weights]
        signatures = {name: _signature(graph) for name, graph in signatures_of(model).items()}
        say("writing the SavedModel")
        with _no_word_of_names():
            tf.saved_model.save(module, str(folder), signatures=signatures)
        _restore_names(folder)
        if verify:
            say("verifying")
            report = _compare(model, folder)
        _write_extra(model, tokenizer, folder / EXTRA, report)
    return report


@contextlib.contextmanager
def _no_word_of_names() -> Iterator[None]:
    """TensorFlow warns of each dot that it turns into an underscore; `_restore_names` follows."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _restore_names(folder: Path) -> None:
    """Gives the signatures' inputs their dots back, which TensorFlow wrote as underscores.

    TensorFlow Serving and `saved_model_cli` go by these names; Python's loader goes by the
    functions, which take both spellings.
    """
    path = folder / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for signature in saved.meta_graphs[0].signature_def.values():
        for written in [name for name in signature.inputs if name.startswith("past_key_values_")]:
            info = signature.inputs[written]
            name = written.replace("past_key_values_", "past_key_values.")
            head, _, rest = name.partition(".")
            signature.inputs[f"{head}.{rest.replace('_', '.')}"].CopyFrom(info)
            del signature.inputs[written]
    path.write_bytes(saved.SerializeToString(deterministic=True))


def _signature(graph: Graph) -> Any:
    """The graph as a concrete function; an input with a default gives everything it could."""
    inputs = [tensor for tensor in graph.inputs if tensor.name != KEEP]

    def call(*values: tf.Tensor) -> dict[str, tf.Tensor]:
        feeds = {tensor.name: value for tensor, value in zip(inputs, values, strict=True)}
        if KEEP in graph.defaults:
            feeds[KEEP] = tf.constant(0, "int64")
        return {name: tf.identity(value) for name, value in graph.call(feeds).items()}

    signature = [tensor.spec() for tensor in inputs]
    return tf.function(call, input_signature=signature, autograph=False)


def _compare(model: TaskModel, folder: Path) -> dict[str, Any]:
    """Runs every reference case through the loaded signatures: full pass, and for decoders token by
    token.
    """
    loaded = tf.saved_model.load(str(folder))
    cases: dict[str, dict[str, Any]] = {}
    for key, value in reference_values(model, None).items():
        case, rest = key.split("/", 1)
        cases.setdefault(case, {})[rest] = value
    differences: dict[str, float] = {}
    for case, arrays in cases.items():
        feeds, expected = _full_pass(arrays)
        found = loaded.signatures["serving_default"](**_tensors(feeds))
        for name, value in expected.items():
            differences[f"{case} {name}"] = difference(np.asarray(found[name]), value)
        if model.generates:
            gap = _stepped(model, loaded.signatures, feeds, expected["logits"])
            differences[f"{case} steps"] = gap
    worst = max(differences.values())
    tolerance = TOLERANCES["float32"]
    if not worst <= tolerance:
        name = max(differences, key=lambda key: differences[key])
        raise VerificationError(
            f"the SavedModel differs from Keras by {worst:.2g} in {name!r}, "
            f"tolerance {tolerance:.2g}"
        )
    return {"cases": differences, "largest": worst, "tolerance": tolerance}


def _full_pass(arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and outputs of a case's full pass."""
    if any(key.startswith("sequence/") for key in arrays):
        values = {
            key.split("/", 1)[1]: v for key, v in arrays.items() if key.startswith("sequence/")
        }
        return values, {"logits": values.pop("logits")}
    sides: dict[str, dict[str, Any]] = {"inputs": {}, "outputs": {}}
    for key, value in arrays.items():
        _, side, name = key.split("/")
        sides[side][name] = value
    return sides["inputs"], sides["outputs"]


def _tensors(feeds: dict[str, Any]) -> dict[str, tf.Tensor]:
    kinds = {"f": tf.float32, "i": tf.int64}
    return {name: tf.constant(value, kinds[value.dtype.kind]) for name, value in feeds.items()}


def _stepped(
    model: TaskModel, signatures: Any, feeds: dict[str, Any], expected: np.ndarray
) -> float:
    """Largest difference between the full pass and `step` fed half of each row and then single
    tokens.
    """
    step, decoder = signatures["step"], model.decoder
    assert decoder is not None
    constants: dict[str, tf.Tensor] = {}
    ids, mask = feeds["input_ids"], feeds["attention_mask"]
    if model.encoder is not None:
        encoded = signatures["encode"](**_tensors({"input_ids": ids, "attention_mask": mask}))
        constants["encoder_attention_mask"] = tf.constant(mask, tf.int64)
        for name, value in encoded.items():
            if name.startswith("present."):
                constants[name.replace("present.", "past_key_values.", 1)] = value
        ids = feeds["decoder_input_ids"]
        mask = np.ones_like(ids)
    shape = (len(ids), decoder.config.num_kv_heads, 0, decoder.config.head_dim)
    kind = "decoder." if model.encoder is not None else ""
    past = {
        f"past_key_values.{i}.{kind}{part}": tf.zeros(shape)
        for i in range(len(decoder.layers))
        for part in ("key", "value")
    }
    worst, position = 0.0, 0
    for width in [max(1, ids.shape[1] // 2)] + [1] * (ids.shape[1] - max(1, ids.shape[1] // 2)):
        new = slice(position, position + width)
        position += width
        fed = {"input_ids": ids[:, new], "attention_mask": mask[:, :position]}
        found = step(**_tensors(fed), **past, **constants)
        past = {
            name.replace("present.", "past_key_values.", 1): value
            for name, value in found.items()
            if name != "logits"
        }
        tokens = mask[:, new] == 1
        gap = difference(np.asarray(found["logits"])[tokens], expected[:, new][tokens])
        worst = max(worst, gap)
    return worst


def _write_extra(model: TaskModel, tokenizer: Any, folder: Path, report: dict[str, Any]) -> None:
    folder.mkdir()
    if tokenizer is not None:
        tokenizer.save(folder)
    facts = {"task": model.task, "labels": model.labels, **config_to_mapping(model.config)}
    for name, value in (("config.json", facts), ("verification.json", report)):
        write_json(folder / name, value)
