"""What an ONNX file holds, its nodes and stored tensors: read without the `onnx` package, no weight
loaded.
"""

from __future__ import annotations

import math
import mmap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serve.bundle.wire import VARINT, fields, varint
from serve.errors import BundleError

DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    8: "string", 9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
    14: "complex64", 15: "complex128", 16: "bfloat16", 17: "float8e4m3fn", 18: "float8e4m3fnuz",
    19: "float8e5m2", 20: "float8e5m2fnuz", 21: "uint4", 22: "int4", 23: "float4e2m1",
    24: "float8e8m0", 25: "uint2", 26: "int2",
}  # fmt: skip
"""Names of TensorProto.DataType."""

BITS = {
    **dict.fromkeys(("uint2", "int2"), 2),
    **dict.fromkeys(("uint4", "int4", "float4e2m1"), 4),
    **dict.fromkeys(("uint16", "int16", "float16", "bfloat16"), 16),
    **dict.fromkeys(("float32", "int32", "uint32"), 32),
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 64),
    "complex128": 128,
}
"""Bits of one element, where it is not a byte."""

# Field numbers of onnx.proto.
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OPERATOR, _NODE_ATTRIBUTE = 1, 2, 3, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_GRAPHS = 1, 3, (6, 11)
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL = 1, 2, 8, 9, 13
_TENSOR_VALUES = (4, 5, 6, 7, 10, 11)
_ENTRY_KEY, _ENTRY_VALUE = 1, 2


@dataclass(frozen=True)
class Node:
    """A node of a graph or of a loop's body; `numbers` are its integer attributes."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    numbers: dict[str, int]


@dataclass(frozen=True)
class StoredTensor:
    """A weight or table and where its bytes lie."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    bytes: int
    raw: bool = True  # False: written as numbers of the wire, not as they lie in memory

    @property
    def elements(self) -> int:
        """Numbers that it holds."""
        return math.prod(self.shape)

    def data(self) -> np.ndarray:
        """Its bytes as they are stored, mapped and not read.

        Raises:
            BundleError: The file ends before.
        """
        if not self.bytes:
            return np.zeros(0, np.uint8)
        if self.offset + self.bytes > self.file.stat().st_size:
            raise BundleError(f"{self.file} ends before the weight {self.name!r} does")
        return np.memmap(self.file, np.uint8, "r", self.offset, (self.bytes,))

    def floats(self) -> np.ndarray | None:
        """Its values, where they are floating-point numbers of 16 or more bits as they lie."""
        if not self.raw:
            return None
        if self.dtype == "bfloat16":
            return (self.data().view("<u2").astype(np.uint32) << 16).view(np.float32)
        if self.dtype not in ("float16", "float32", "float64"):
            return None
        return self.data().view(np.dtype(self.dtype).newbyteorder("<"))


@dataclass(frozen=True)
class GraphFile:
    """The nodes, those of loops' bodies included, and the stored tensors of one ONNX file."""

    path: Path
    nodes: tuple[Node, ...]
    tensors: dict[str, StoredTensor]

    @property
    def operators(self) -> dict[str, int]:
        """How often each operator occurs."""
        return dict(sorted(Counter(node.operator for node in self.nodes).items()))


def read_graph(path: Path) -> GraphFile:
    """Reads an ONNX file.

    Raises:
        BundleError: It is not there, or is not an ONNX file.
    """
    nodes: list[Node] = []
    tensors: dict[str, StoredTensor] = {}
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            memoryview(data) as view,
        ):
            for number, start, end in fields(view, 0, len(view)):
                if number == _MODEL_GRAPH:
                    _read_graph(view, start, end, path, nodes, tensors)
    except (ValueError, IndexError) as error:
        raise BundleError(f"{path} is not an ONNX file: {error}") from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    return GraphFile(path, tuple(nodes), tensors)


def _text(view: memoryview, start: int, end: int) -> str:
    if end == VARINT:
        raise ValueError("a name is a number")
    return str(view[start:end], "utf-8")


def _read_graph(
    view: memoryview,
    start: int,
    end: int,
    path: Path,
    nodes: list[Node],
    tensors: dict[str, StoredTensor],
) -> None:
    for number, at, stop in fields(view, start, end):
        if number == _GRAPH_NODE:
            bodies = list(_read_node(view, at, stop, nodes))
            for first, last in bodies:
                _read_graph(view, first, last, path, nodes, tensors)
        elif number == _GRAPH_INITIALIZER:
            tensor = _read_tensor(view, at, stop, path)
            tensors[tensor.name] = tensor


def _read_node(
    view: memoryview, start: int, end: int, nodes: list[Node]
) -> Iterator[tuple[int, int]]:
    """Adds a node; yields where the graphs in its attributes lie."""
    names: dict[int, list[str]] = {_NODE_INPUT: [], _NODE_OUTPUT: []}
    said = {_NODE_NAME: "", _NODE_OPERATOR: ""}
    numbers: dict[str, int] = {}
    for number, at, stop in fields(view, start, end):
        if number in names:
            names[number].append(_text(view, at, stop))
        elif number in said:
            said[number] = _text(view, at, stop)
        elif number == _NODE_ATTRIBUTE:
            name, value = "", None
            for inner, first, last in fields(view, at, stop):
                if inner == _ATTRIBUTE_NAME:
                    name = _text(view, first, last)
                elif inner == _ATTRIBUTE_INT and last == VARINT:
                    value = first
                elif inner in _ATTRIBUTE_GRAPHS:
                    yield first, last
            if value is not None:
                numbers[name] = value - (1 << 64) if value >= 1 << 63 else value
    inputs, outputs = tuple(names[_NODE_INPUT]), tuple(names[_NODE_OUTPUT])
    nodes.append(Node(said[_NODE_NAME], said[_NODE_OPERATOR], inputs, outputs, numbers))


def _read_tensor(view: memoryview, start: int, end: int, path: Path) -> StoredTensor:
    name, dtype, shape, raw = "", 0, [], True
    file, offset, size = path, 0, 0
    external: dict[str, str] = {}
    for number, at, stop in fields(view, start, end):
        if number == _TENSOR_DIMS:
            shape += [at] if stop == VARINT else _packed(view, at, stop)
        elif number == _TENSOR_TYPE:
            dtype = at
        elif number == _TENSOR_NAME:
            name = _text(view, at, stop)
        elif number == _TENSOR_RAW or (number in _TENSOR_VALUES and stop != VARINT):
            offset, size, raw = at, stop - at, number == _TENSOR_RAW
        elif number == _TENSOR_EXTERNAL:
            entry = {
                field: _text(view, first, last) for field, first, last in fields(view, at, stop)
            }
            external[entry.get(_ENTRY_KEY, "")] = entry.get(_ENTRY_VALUE, "")
    kind = DTYPES.get(dtype, f"type {dtype}")
    if external:
        file = path.parent / external.get("location", "")
        offset = int(external.get("offset", 0))
        stated = -(-math.prod(shape) * BITS.get(kind, 8) // 8)
        size = int(external.get("length", stated))
    return StoredTensor(name, kind, tuple(shape), file, offset, size, raw)


def _packed(view: memoryview, at: int, end: int) -> list[int]:
    values = []
    while at < end:
        value, at = varint(view, at)
        values.append(value)
    return values
