"""Finds in a converted graph what can be quantised: linear maps and tables."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import onnx

from export.onnx import Converted, all_nodes

FEWEST = 16
"""Maps to fewer outputs stay as they are: they cost nothing, and decide everything."""
SMALLEST_TABLE = 1 << 12


@dataclass(frozen=True)
class Linear:
    """y = x W + b.

    Attributes:
        nodes: The nodes that compute it, first to last.
        x: The input's name.
        weight: W's name.
        bias: b's name, where there is one.
        output: y's name.
        rows: W is [out, in], as tied embeddings are.
        head: It maps to the vocabulary.
    """

    nodes: tuple[onnx.NodeProto, ...]
    x: str
    weight: str
    bias: str | None
    output: str
    rows: bool
    head: bool


class Finder:
    """The graph's nodes by what they read and write.

    Args:
        converted: The graph.
    """

    def __init__(self, converted: Converted) -> None:
        self.converted = converted
        self.graph = converted.proto.graph
        self.producer = {name: node for node in self.graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in set(node.input):
                self.readers.setdefault(name, []).append(node)
        self.outputs = Counter(value.name for value in self.graph.output)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a weight; None for what is no weight."""
        weight = self.converted.weights.get(name)
        return None if weight is None else tuple(weight.shape)

    def linears(self) -> Iterator[Linear]:
        """The linear maps of at least `FEWEST` outputs, in the order of the graph."""
        for node in self.graph.node:
            found = self._linear(node)
            if found is not None:
                yield found

    def tables(self) -> Iterator[tuple[onnx.NodeProto, str]]:
        """Look-ups in large tables, those of loops included: (node, table's name)."""
        for node in all_nodes(self.graph):
            shape = self.shape(node.input[0]) if node.op_type == "Gather" else None
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            if shape is None or axis != 0 or len(shape) not in (2, 3):
                continue
            if shape[0] * shape[1] * (shape[2] if len(shape) == 3 else 1) >= SMALLEST_TABLE:
                yield node, node.input[0]

    def alone(self, name: str) -> onnx.NodeProto | None:
        """The only reader of a tensor that is no output of the graph."""
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and not self.outputs[name] else None

    def _linear(self, node: onnx.NodeProto) -> Linear | None:
        if node.op_type == "MatMul":
            weight, rows = node.input[1], False
            turn = self.producer.get(weight)
            if turn is not None and turn.op_type == "Transpose" and self.shape(turn.input[0]):
                weight, rows = turn.input[0], True
        elif node.op_type == "FusedMatMul" and _attribute(node, "transB"):
            weight, rows = node.input[1], True
        else:
            return None
        shape = self.shape(weight)
        if shape is None or len(shape) != 2 or shape[0 if rows else 1] < FEWEST:
            return None
        nodes, output, bias = [node], node.output[0], None
        reader = self.alone(output)
        if reader is not None and reader.op_type == "Add":
            other = next((name for name in reader.input if name != output), output)
            if self.shape(other) == (shape[0 if rows else 1],):
                nodes, output, bias = [node, reader], reader.output[0], other
        head = rows or weight.startswith("head/")
        return Linear(tuple(nodes), node.input[0], weight, bias, output, rows, head)


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    return next(
        (onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), None
    )
