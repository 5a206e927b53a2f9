"""`to_saved_model`: a SavedModel with the signatures that the ONNX graphs have, loadable with
TensorFlow alone.
"""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from export.generation import generation_graphs
from export.graphs import KEEP, Graph, encode_graph, forward_graph, step_graph
from export.models import prepared, tokenizer_of
from export.saved_model_verify import compare
from export.staging import staged
from zoo.backbones.config import config_to_mapping
from zoo.tasks import TaskModel
from zoo.text.json_file import write_json

EXTRA = "assets.extra"


def signatures_of(model: TaskModel) -> dict[str, Graph]:
    """`serving_default` is the whole model; generating models add `step`, `generate` and `sample`,
    and `encode` where they have an encoder.
    """
    graphs = {"serving_default": forward_graph(model)}
    if model.generates:
        graphs["step"] = step_graph(model, "grow")
        if model.encoder is not None:
            graphs["encode"] = encode_graph(model)
        graphs |= generation_graphs(model)
    return graphs


def to_saved_model(
    model: Any,
    out: str | os.PathLike[str],
    *,
    tokenizer: Any = None,
    precision: str = "float32",
    verify: bool = True,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Exports a model as a SavedModel; `tf.saved_model.load` reads it without this project.

    Inputs and outputs bear the names that the ONNX graphs have. Ids are int64; `step` returns the
    logits of all its positions; `generate` and `sample` run the whole loop (see
    `export.generation`). The tokenizer and the config lie in `assets.extra/`, with what
    verification measured.

    Args:
        model: A `zoo.TaskModel`.
        out: The folder to make.
        tokenizer: By default the model's own.
        precision: What weights and caches are kept and computed in: "float32", "float16" or
            "bfloat16". Norms and softmax are float32 in all, and so are the outputs.
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
    given, model = model, prepared(model, precision)
    tokenizer = tokenizer_of(model, tokenizer)
    report: dict[str, Any] = {}
    with staged(out, overwrite) as folder:
        say("tracing signatures")
        signatures = {
            name: _signature(graph, model.compute_dtype)
            for name, graph in signatures_of(model).items()
        }
        say("writing the SavedModel")
        save_signatures(model, signatures, folder)
        if verify:
            say("verifying")
            report = compare(model, prepared(given), folder)
        _write_extra(model, tokenizer, folder / EXTRA, report)
    return report


def save_signatures(model: TaskModel, signatures: dict[str, Any], folder: Path) -> None:
    """Writes a SavedModel of `signatures`, functions of positional tensors, over one set of
    weights; inputs keep the names of their specs.
    """
    module = tf.Module()
    module.weights = [variable.value for variable in model.weights]
    with _no_word_of_names():
        tf.saved_model.save(module, str(folder), signatures=signatures)
    _restore_names(folder)


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


def _signature(graph: Graph, dtype: str) -> Any:
    """The graph as a function; an input with a default gives everything it could.

    Caches are of the model's own `dtype`, all other floats float32.
    """
    inputs = [tensor for tensor in graph.inputs if tensor.name != KEEP]
    inputs = [
        dataclasses.replace(tensor, dtype=dtype) if _cached(tensor.name) else tensor
        for tensor in inputs
    ]

    def call(*values: tf.Tensor) -> dict[str, tf.Tensor]:
        feeds = {tensor.name: value for tensor, value in zip(inputs, values, strict=True)}
        if KEEP in graph.defaults:
            feeds[KEEP] = tf.constant(0, "int64")
        return {
            name: tf.identity(value)
            if _cached(name) or not value.dtype.is_floating
            else tf.cast(value, tf.float32)
            for name, value in graph.call(feeds).items()
        }

    signature = [tensor.spec() for tensor in inputs]
    return tf.function(call, input_signature=signature, autograph=False)


def _cached(name: str) -> bool:
    return name.startswith(("past_key_values.", "present."))


def _write_extra(model: TaskModel, tokenizer: Any, folder: Path, report: dict[str, Any]) -> None:
    folder.mkdir()
    if tokenizer is not None:
        tokenizer.save(folder)
    facts = {
        "task": model.task,
        "labels": model.labels,
        "precision": model.compute_dtype,
        **config_to_mapping(model.config),
    }
    for name, value in (("config.json", facts), ("verification.json", report)):
        write_json(folder / name, value)
