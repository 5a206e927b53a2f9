"""Keras model to ONNX graphs: trace with the weights as inputs, convert, attach the weights by
name.

The weights never pass through a GraphDef: they are inputs while the function is traced and become
initializers that lie in one external file, each once, under the path of its Keras variable.
"""

import contextlib
import hashlib
import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import keras
import numpy as np
import onnx
import tensorflow as tf
from onnx import TensorProto, numpy_helper
from tf2onnx import optimizer, tf_loader, tfonnx, utils
from tf2onnx.optimizer.back_to_back_optimizer import BackToBackOptimizer
from tf2onnx.optimizer.const_fold_optimizer import ConstFoldOptimizer
from tf2onnx.optimizer.identity_optimizer import IdentityOptimizer
from tf2onnx.optimizer.merge_duplicated_nodes_optimizer import MergeDuplicatedNodesOptimizer

from export import lowering
from export.errors import ExportError
from export.graphs import Graph
from export.shared_memory import for_graph
from export.weights import joined
from zoo import ops

WEIGHTS_FILE = "model.onnx.data"
SMALL = 1024
"""Tensors of fewer bytes stay in the graph's own file: shapes and scalars, which runtimes fold."""


def _in_order(base: type) -> type:
    """tf2onnx' optimiser `base`, which meets the nodes in the order of their names.

    Left alone it meets them in the order of their addresses, and the graph is another each time.
    """

    class Ordered(base):
        def _optimize(self, graph: Any) -> Any:
            graph.reset_nodes(sorted(graph.get_nodes(), key=lambda node: node.name))
            return super()._optimize(graph)

    return Ordered


OPTIMIZERS = {
    "fold_constants": _in_order(ConstFoldOptimizer),
    "remove_identity": _in_order(IdentityOptimizer),
}
TIDY_OPTIMIZERS = {
    **OPTIMIZERS,
    "merge_duplication": _in_order(MergeDuplicatedNodesOptimizer),
    "remove_back_to_back": _in_order(BackToBackOptimizer),
}
"""For graphs of plain operators, which repeat their shape arithmetic in every layer."""

ADVICE = "Write the layer with the primitives of zoo.ops, or add a lowering in export/lowering.py"


_CONVERTING = threading.Lock()
"""tf2onnx counts names and logs problems in one place for all."""


@dataclass(frozen=True)
class Converted:
    """A graph without its weights, and which variable each weight's name stands for.

    Its `parameters` are the numbers that were learnt, however they are stored.
    """

    graph: Graph
    proto: onnx.ModelProto
    weights: dict[str, Any]
    parameters: int = 0

    @property
    def operators(self) -> dict[str, int]:
        """How often each operator occurs."""
        return dict(sorted(Counter(node.op_type for node in all_nodes(self.proto.graph)).items()))


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """A graph's nodes, with those of the loops' bodies."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from all_nodes(attribute.g)


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and those of its loops' bodies."""
    yield graph
    for node in all_nodes(graph):
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield attribute.g


def convert(model: keras.Model, graph: Graph, target: str, opset: int) -> Converted:
    """Converts one graph of `model`.

    Args:
        model: The model; computes in float32.
        graph: What to convert.
        target: A name in `lowering.TARGETS`.
        opset: Version of ONNX' own operators.

    Raises:
        ExportError: An operator has no ONNX counterpart, or two weights share a name.
    """
    variables = list(model.weights)
    names = weight_names(variables)
    stand_ins = [f"weight_{i}" for i in range(len(variables))]
    signature = [tensor.spec() for tensor in graph.inputs]
    count = len(signature)
    signature += [
        tf.TensorSpec(v.shape, v.dtype, name=name)
        for v, name in zip(variables, stand_ins, strict=True)
    ]

    def traced(*values: tf.Tensor) -> dict[str, tf.Tensor]:
        feeds = {t.name: value for t, value in zip(graph.inputs, values[:count], strict=True)}
        mapping = list(zip(variables, values[count:], strict=True))
        with keras.StatelessScope(state_mapping=mapping), ops.lowered(table):
            results = graph.call(feeds)
        return {t.name: tf.identity(results[t.name]) for t in graph.outputs}

    table = for_graph(lowering.TARGETS[target], graph)
    optimizers = TIDY_OPTIMIZERS if target == "portable" else OPTIMIZERS
    constants, shared = lowering.constants.set({}), lowering.shared.set({})
    try:
        function = tf.function(traced, input_signature=signature, autograph=False)
        with _CONVERTING, _strict_conversion():
            utils.INTERNAL_NAME = 0  # else a graph's names depend on the graphs before it
            proto = _to_onnx(function.get_concrete_function(), graph, opset, optimizers)
    finally:
        lowering.constants.reset(constants)
        lowering.shared.reset(shared)
    _check_operators(proto)
    weights = _name_weights(
        proto, dict(zip(stand_ins, zip(names, variables, strict=True), strict=True))
    )
    _finish(proto, graph)
    _free_loops(proto.graph)
    parameters = sum(math.prod(variable.shape) for variable in weights.values())
    _join_biases(proto.graph, weights)
    return Converted(graph, proto, weights, parameters)


def _to_onnx(
    function: Any, graph: Graph, opset: int, optimizers: dict[str, type]
) -> onnx.ModelProto:
    """tf2onnx' conversion by its parts: nothing to freeze, and only those optimisers that a clean
    trace needs.

    The others cost two thirds of the time and undo what the lowering emits; runtimes do their own.
    """
    if function.captured_inputs:
        names = [v.name for v in function.graph.variables] or [
            tensor.name for tensor in function.graph.internal_captures
        ]
        raise ExportError(
            f"the model uses {len(function.captured_inputs)} tensors that are no weights of it, "
            f"such as {names[0]!r}: create them with add_weight or zoo.ops.constant"
        )
    outputs = [function.structured_outputs[tensor.name] for tensor in graph.outputs]
    inputs = [tensor.name for tensor in function.inputs]
    rename = {name: name.split(":")[0] for name in inputs}
    rename |= {
        value.name: tensor.name for value, tensor in zip(outputs, graph.outputs, strict=True)
    }
    names = [value.name for value in outputs]
    definition = function.graph.as_graph_def()
    if definition.library.function:  # only then: it takes a second, and once the weights' memory
        with tf.Graph().as_default():
            tf.import_graph_def(definition, name="")
            definition = tf_loader.tf_optimize(inputs, names, definition)
    with tf.Graph().as_default() as tf_graph:
        tf.import_graph_def(definition, name="")
        converted = tfonnx.process_tf_graph(
            tf_graph,
            continue_on_error=True,
            opset=opset,
            custom_op_handlers={"PyFunc": (lowering.convert_placeholder, [])},
            input_names=inputs,
            output_names=names,
            tensors_to_rename=rename,
        )
    converted = optimizer.optimize_graph(converted, catch_errors=False, optimizers=optimizers)
    return converted.make_model(graph.name)


def weight_names(variables: Sequence[Any]) -> list[str]:
    """The variables' paths below the model.

    Raises:
        ExportError: Two variables share a path.
    """
    names = [variable.path.split("/", 1)[-1] for variable in variables]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ExportError(
            f"{len(twice)} weights share a name with another, such as {twice[0]!r}: "
            "give the layers distinct names"
        )
    return names


class _Problems(logging.Handler):
    """Keeps what tf2onnx logs as errors; it writes a broken file rather than raise."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def _strict_conversion() -> Iterator[None]:
    """Raises what tf2onnx only logs, and keeps its chatter off the terminal."""
    problems = _Problems()
    root = logging.getLogger("tf2onnx")
    before = root.level, root.propagate
    root.addHandler(problems)
    root.setLevel(logging.ERROR)
    root.propagate = False
    try:
        yield
    except ExportError:
        raise
    except (ValueError, NotImplementedError, AttributeError, KeyError) as error:
        raise ExportError(f"tf2onnx could not convert the graph: {error}") from error
    finally:
        root.removeHandler(problems)
        root.setLevel(before[0])
        root.propagate = before[1]
    if problems.lines:
        raise ExportError(
            f"tf2onnx could not convert the graph: {' '.join(problems.lines)[:500]}. {ADVICE}"
        )


def _check_operators(proto: onnx.ModelProto) -> None:
    """Every operator must be one of ONNX' own at this opset, or one that the lowering emits."""
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    unknown = set()
    for node in all_nodes(proto.graph):
        if node.domain == lowering.MICROSOFT:
            continue
        try:
            onnx.defs.get_schema(node.op_type, versions.get(node.domain, 1), node.domain)
        except onnx.defs.SchemaError:
            unknown.add(f"{node.op_type} ({node.name})")
    if unknown:
        raise ExportError(f"no ONNX operator for {', '.join(sorted(unknown)[:5])}. {ADVICE}")


def _name_weights(proto: onnx.ModelProto, stand_ins: dict[str, tuple[str, Any]]) -> dict[str, Any]:
    """Renames the stand-in inputs to their variables' names and takes them off the inputs; returns
    those in use.
    """
    graph = proto.graph
    rename, kept = {}, []
    for value in graph.input:
        found = stand_ins.get(value.name)
        if found is None:
            kept.append(value)
        else:
            rename[value.name] = found
    taken = {name for node in graph.node for name in node.output}
    taken |= {value.name for value in kept} | {tensor.name for tensor in graph.initializer}
    clash = sorted(taken & {name for name, _ in rename.values()})
    if clash:
        raise ExportError(
            f"the name {clash[0]!r} stands for a weight and for a tensor of the graph"
        )
    used: dict[str, Any] = {}
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name in rename:
                node.input[i] = rename[name][0]
                used[rename[name][0]] = rename[name][1]
        for i, name in enumerate(node.output):
            if name.startswith(lowering.UNUSED):
                node.output[i] = ""
    inputs = list(kept)
    del graph.input[:]
    graph.input.extend(inputs)
    return used


def _finish(proto: onnx.ModelProto, graph: Graph) -> None:
    """Names the axes, adds the default values and drops what the conversion left behind."""
    tensors = {t.name: t for t in (*graph.inputs, *graph.outputs)}
    for value in (*proto.graph.input, *proto.graph.output):
        tensor = tensors[value.name]
        del value.type.tensor_type.shape.dim[:]
        value.type.tensor_type.shape.SetInParent()
        for axis in tensor.axes:
            dim = value.type.tensor_type.shape.dim.add()
            if isinstance(axis, int):
                dim.dim_value = axis
            else:
                dim.dim_param = axis
    found = {value.name for value in (*proto.graph.input, *proto.graph.output)}
    missing = sorted(set(tensors) - found)
    if missing:
        raise ExportError(f"the converted graph lost its tensors {missing}")
    for name, default in graph.defaults.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(default), name))
    del proto.graph.value_info[:]
    # tf2onnx is not told of Microsoft's domain: it would take operators from there for itself.
    imports = [entry for entry in proto.opset_import if not entry.domain]
    if any(node.domain == lowering.MICROSOFT for node in all_nodes(proto.graph)):
        imports.append(onnx.helper.make_opsetid(lowering.MICROSOFT, 1))
    del proto.opset_import[:]
    proto.opset_import.extend(imports)
    proto.producer_name, proto.producer_version, proto.doc_string = "keras-text-zoo", "", ""
    proto.graph.name = graph.name
    proto.graph.doc_string = ""


def _free_loops(graph: onnx.GraphProto) -> None:
    """Takes what a loop's body only passes on from its variables: the body reads it where it is.

    Runtimes copy a loop's variables in every round, weights included.
    """
    for node in graph.node:
        if node.op_type != "Loop":
            continue
        body = next(attribute.g for attribute in node.attribute if attribute.name == "body")
        passed = {n.output[0]: n.input[0] for n in body.node if n.op_type == "Identity"}
        fixed: dict[str, str] = {}
        for k in reversed(range(len(node.input) - 2)):  # before them: trip count, condition
            name, result = body.input[k + 2].name, body.output[k + 1].name
            if passed.get(result) == name:
                fixed[name] = node.input[k + 2]
                for part in (body.input, node.input):
                    del part[k + 2]
                del body.output[k + 1], node.output[k]
        for inner in all_nodes(body):
            for i, name in enumerate(inner.input):
                inner.input[i] = fixed.get(name, name)
        used = {name for inner in all_nodes(body) for name in inner.input}
        used |= {value.name for value in body.output}
        nodes = [n for n in body.node if n.op_type != "Identity" or n.output[0] in used]
        del body.node[:]
        body.node.extend(nodes)


def _join_biases(graph: onnx.GraphProto, weights: dict[str, Any]) -> None:
    """Gives MultiHeadAttention the biases of its queries, keys and values, which it takes as one
    and adds on the way.
    """
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(value.name for value in graph.output)
    producer = {node.output[0]: node for node in graph.node}
    gone = set()
    for node in graph.node:
        if node.op_type != "MultiHeadAttention" or (len(node.input) > 3 and node.input[3]):
            continue
        sums = [producer.get(name) for name in node.input[:3]]
        parts = [
            (name, bias)
            for total in sums
            if total is not None and total.op_type == "Add" and readers[total.output[0]] == 1
            for name, bias in (total.input, reversed(total.input))
            if bias in weights and len(weights[bias].shape) == 1 and name not in weights
        ]
        if len(parts) != 3 or len({producer[name].input[0] for name, _ in parts}) != 1:
            continue
        joint = parts[0][1].replace("query", "query_key_value")
        weights[joint] = joined([weights[bias] for _, bias in parts])
        for i, (name, _) in enumerate(parts):
            gone.add(node.input[i])
            node.input[i] = name
        if len(node.input) == 3:
            node.input.append("")
        node.input[3] = joint
    nodes = [node for node in graph.node if node.output[0] not in gone]
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for holder in graphs_of(graph) for node in holder.node for name in node.input}
    for name in set(weights) - read:
        del weights[name]


class WeightsFile:
    """The external data of a bundle: each weight once, whichever graphs use it."""

    def __init__(self, folder: Path, name: str = WEIGHTS_FILE) -> None:
        self.path = folder / name
        self._stream: BinaryIO = self.path.open("wb")
        self._places: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> "WeightsFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def add(self, name: str, array: np.ndarray) -> tuple[int, int]:
        """Writes `array`, unless `name` is there already; returns (offset, bytes)."""
        if name not in self._places:
            # Pages for tensors worth mapping, cache lines for the rest.
            alignment = 4096 if array.nbytes >= 1 << 16 else 64
            self._stream.write(b"\0" * (-self._stream.tell() % alignment))
            self._places[name] = (self._stream.tell(), array.nbytes)
            self._stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        elif self._places[name][1] != array.nbytes:
            raise ExportError(f"two different weights are called {name!r}: one would be lost")
        return self._places[name]


def write_graph(
    converted: Converted,
    path: Path,
    weights: WeightsFile,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Writes the graph beside its weights.

    Args:
        converted: The graph.
        path: Its file.
        weights: The bundle's external data.
        progress: Called with the bytes of each weight that was written.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(converted.proto)
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.nbytes >= SMALL:
            # By content, as two graphs may name different tables alike.
            place = weights.add(hashlib.sha256(array.tobytes()).hexdigest(), array)
            _point(tensor, weights.path.name, *place)
    for name, variable in sorted(converted.weights.items()):
        array = _values(variable)
        tensor = TensorProto(name=name, data_type=_onnx_type(array), dims=array.shape)
        if array.nbytes >= SMALL:
            key = getattr(variable, "key", None) or name
            _point(tensor, weights.path.name, *weights.add(key, array))
        else:
            tensor.raw_data = array.tobytes()
        proto.graph.initializer.append(tensor)
        if progress is not None:
            progress(array.nbytes)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _values(variable: Any) -> np.ndarray:
    """A weight's values where they are: Keras would copy them twice, which 2 GB feel."""
    value = getattr(variable, "value", variable)
    return np.asarray(value.read_value() if isinstance(value, tf.Variable) else variable)


def _onnx_type(array: np.ndarray) -> int:
    return int(onnx.helper.np_dtype_to_tensor_dtype(array.dtype))


def _point(tensor: TensorProto, file: str, offset: int, length: int) -> None:
    """Makes `tensor` refer to the external data in `file`."""
    tensor.ClearField("raw_data")
    for kind in ("float_data", "int32_data", "int64_data", "double_data"):
        tensor.ClearField(kind)
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", file), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
