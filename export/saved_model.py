"""`to_saved_model`: a SavedModel with the signatures that the ONNX graphs have, loadable with
TensorFlow alone.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from export.errors import ExportError
from export.generation import Steps, generation_graphs
from export.graphs import KEEP, Graph, encode_graph, forward_graph, step_graph
from export.models import prepared, tokenizer_of
from export.saved_model_verify import compare
from export.staging import staged
from export.strings.errors import InexactError
from export.text_signatures import TextSignatures, text_signatures
from zoo.backbones.config import config_to_mapping
from zoo.tasks import TaskModel
from zoo.text.json_file import write_json

EXTRA = "assets.extra"


def signatures_of(model: TaskModel, steps: Steps | None = None) -> dict[str, Graph]:
    """`serving_default` is the whole model; generating models add `step`, `generate` and `sample`,
    and `encode` where they have an encoder.
    """
    graphs = {"serving_default": forward_graph(model)}
    if model.generates:
        graphs["step"] = step_graph(model, "grow")
        if model.encoder is not None:
            graphs["encode"] = encode_graph(model)
        graphs |= generation_graphs(steps or Steps(model))
    return graphs


def to_saved_model(
    model: Any,
    out: str | os.PathLike[str],
    *,
    tokenizer: Any = None,
    precision: str = "float32",
    text: bool | None = None,
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
        text: Add signatures that take strings (see `export.text_signatures`). None: where there
            is a tokenizer whose ids a graph makes exactly; `assets.extra/text.json` says why not.
        verify: Load it again and compare it with Keras before the folder appears.
        overwrite: Replace `out` where it exists.
        progress: Called with what is being done.

    Returns:
        What verification measured, and under "text" what strings may be given to.

    Raises:
        ExportError: The export cannot be made, its values are not those of Keras, or `text` was
            asked for and cannot be exact; `out` is then untouched.
    """
    say = progress or (lambda text: None)
    given, model = model, prepared(model, precision)
    tokenizer = tokenizer_of(model, tokenizer)
    report: dict[str, Any] = {}
    with staged(out, overwrite) as folder:
        steps = Steps(model) if model.generates else None
        strings = _strings(model, tokenizer, steps, text, say)
        say("tracing signatures")
        graphs = {**signatures_of(model, steps), **strings.graphs}
        signatures = {name: _signature(graph) for name, graph in graphs.items()}
        say("writing the SavedModel")
        save_signatures(model, signatures, folder, strings.parts)
        if verify:
            say("verifying")
            report = compare(model, prepared(given), folder, tokenizer if strings.graphs else None)
        report["text"] = strings.facts
        _write_extra(model, tokenizer, folder / EXTRA, report)
    return report


def _strings(
    model: TaskModel,
    tokenizer: Any,
    steps: Steps | None,
    wanted: bool | None,
    say: Callable[[str], None],
) -> TextSignatures:
    """The signatures for strings, where they are wanted and exact."""
    if tokenizer is None or wanted is False:
        if wanted:
            raise ExportError("text=True needs a tokenizer: pass tokenizer=")
        return TextSignatures(facts={"signatures": [], "left_out": "not asked for"})
    say("comparing the tokenizer's graph with the tokenizer")
    try:
        return text_signatures(model, tokenizer, steps)
    except InexactError as error:
        if wanted:
            raise InexactError(f"no signature can take strings: {error}") from error
        say(f"no signature takes strings: {error}")
        return TextSignatures(facts={"signatures": [], "left_out": str(error)})


def save_signatures(
    model: TaskModel, signatures: dict[str, Any], folder: Path, parts: Sequence[tf.Module] = ()
) -> None:
    """Writes a SavedModel of `signatures`, functions of positional tensors, over one set of
    weights; inputs keep the names of their specs. `parts` hold what else they need.
    """
    module = tf.Module()
    module.parts = list(parts)
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


def _signature(graph: Graph) -> Any:
    """The graph as a function; an input with a default gives everything it could."""
    inputs = [tensor for tensor in graph.inputs if tensor.name != KEEP]

    def call(*values: tf.Tensor) -> dict[str, tf.Tensor]:
        feeds = {tensor.name: value for tensor, value in zip(inputs, values, strict=True)}
        if KEEP in graph.defaults:
            feeds[KEEP] = tf.constant(0, "int64")
        return {name: tf.identity(value) for name, value in graph.call(feeds).items()}

    signature = [tensor.spec() for tensor in inputs]
    return tf.function(call, input_signature=signature, autograph=False)


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
    files = {"config.json": facts, "verification.json": report, "text.json": report["text"]}
    for name, value in files.items():
        write_json(folder / name, value)
