"""Graphs to a .tflite file, by way of a SavedModel: several signatures over one set of weights."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.python.convert_phase import ConverterError

from export.errors import ExportError
from export.graphs import Graph
from export.lowering import PORTABLE
from export.saved_model import save_signatures
from zoo import ops
from zoo.quiet import native_lines_withheld
from zoo.tasks import TaskModel

PRECISIONS = ("float32", "float16", "int8")
BYTES = {"float32": 4, "float16": 2, "int8": 1}
LARGEST = (1 << 31) - (1 << 20)
"""Bytes that a .tflite file can hold: its offsets are 32 bits wide. Less some for the graph."""


def _reshape(x: tf.Tensor, sizes: Sequence[int]) -> tf.Tensor:
    """With a constant shape where only one axis is dynamic, as in every decode call."""
    known = x.shape.as_list()
    wanted: list[Any] = [size or known[i] for i, size in enumerate(sizes)]
    if known.count(None) == 1 and None in wanted:
        if -1 in wanted:
            rest = math.prod(size for size in wanted if size not in (None, -1))
            wanted[wanted.index(-1)] = math.prod(size for size in known if size) // rest
        wanted[wanted.index(None)] = -1
    elif None in wanted:
        shape = tf.shape(x)
        wanted = [shape[i] if size is None else size for i, size in enumerate(wanted)]
    return tf.reshape(x, wanted)


LOWERED: dict[str, Callable[..., Any]] = {
    **{name: PORTABLE[name] for name in ("linear", "embed", "experts")},
    "constant": lambda name, value: tf.constant(value),
    "reshape": _reshape,
}
"""One operator per linear map, with the tied embedding as it is; all else converts as written."""

_BUILTIN = {number: name for name, number in vars(schema.BuiltinOperator).items()}


def convert(model: TaskModel, graphs: Sequence[Graph], precision: str, folder: Path) -> bytes:
    """Converts `graphs` to one .tflite file, each as a signature.

    Args:
        model: The model; computes in float32.
        graphs: What to convert.
        precision: "float32"; "float16": weights; "int8": weights of linear maps per output
            channel, with activations quantised as they come, and embeddings per table.
        folder: Where the SavedModel may lie meanwhile.

    Returns:
        The file's bytes.

    Raises:
        ExportError: An operator is not one of LiteRT's own, or the weights do not fit in a file.
    """
    parameters = model.count_params()
    size = parameters * BYTES[precision]
    if size > LARGEST:
        smaller = [name for name in PRECISIONS if parameters * BYTES[name] <= LARGEST]
        raise ExportError(
            f"{size / 1e9:.1f} GB of {precision} weights do not fit in a .tflite file, which ends "
            f"at 2 GB: choose {f'precision {smaller[0]!r}' if smaller else 'another format'}"
        )
    with TemporaryDirectory(dir=folder, prefix=".saved-model-") as saved:
        signatures = {graph.name: _signature(graph) for graph in graphs}
        save_signatures(model, signatures, Path(saved))
        converter = tf.lite.TFLiteConverter.from_saved_model(
            saved, signature_keys=[graph.name for graph in graphs]
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        with native_lines_withheld(ExportError):
            content = _converted(converter)
    _refuse_custom(content)
    return content


def operators(content: bytes) -> dict[str, int]:
    """How often each operator occurs in a .tflite file, all signatures together."""
    return dict(sorted(Counter(_operators(content)).items()))


def minimum_runtime(content: bytes) -> str | None:
    """The oldest TensorFlow Lite version that knows the file's operators, as the converter wrote
    it.
    """
    model = schema.Model.GetRootAsModel(content, 0)
    for i in range(model.MetadataLength()):
        entry = model.Metadata(i)
        if entry.Name() == b"min_runtime_version":
            raw = model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
            return raw.rstrip(b"\0").decode("ascii")
    return None


def _signature(graph: Graph) -> Any:
    """The graph as a function of named tensors."""

    def call(*values: tf.Tensor) -> dict[str, tf.Tensor]:
        feeds = {tensor.name: value for tensor, value in zip(graph.inputs, values, strict=True)}
        with ops.lowered(LOWERED):
            results = graph.call(feeds)
        return {tensor.name: tf.identity(results[tensor.name]) for tensor in graph.outputs}

    signature = [tensor.spec() for tensor in graph.inputs]
    return tf.function(call, input_signature=signature, autograph=False)


def _converted(converter: Any) -> bytes:
    try:
        return converter.convert()
    except ConverterError as error:
        text = str(error)
        found = re.findall(r"^(?:TF Select|Custom) ops: (.+)$", text, flags=re.MULTILINE)
        names = sorted({name.strip() for line in found for name in line.split(",")})
        if not names:
            raise ExportError(f"the LiteRT converter gave up: {text.splitlines()[0]}") from error
        raise ExportError(
            f"no LiteRT operator for {', '.join(names)}, which would need TensorFlow's own kernels "
            "on the device: write the layer with other operations of keras.ops, or add a lowering "
            "in export/litert/conversion.py"
        ) from error


def _refuse_custom(content: bytes) -> None:
    custom = sorted(name for name in set(_operators(content)) if name.startswith("CUSTOM "))
    if custom:
        raise ExportError(f"the file needs operators that LiteRT does not bring: {custom}")


def _operators(content: bytes) -> Iterator[str]:
    model = schema.Model.GetRootAsModel(content, 0)
    names = []
    for i in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(i)
        name = _BUILTIN[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        custom = code.CustomCode()
        names.append(name if custom is None else f"CUSTOM {custom.decode()}")
    for i in range(model.SubgraphsLength()):
        graph = model.Subgraphs(i)
        for j in range(graph.OperatorsLength()):
            yield names[graph.Operators(j).OpcodeIndex()]
