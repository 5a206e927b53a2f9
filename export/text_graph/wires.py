"""A small writer of ONNX nodes: operators are methods, values are `Wire`s, constants stand once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Value = Union["Wire", np.ndarray, int, bool, float, Sequence[int]]

CONTRIB = "ai.onnx.contrib"
ML = "ai.onnx.ml"
MICROSOFT = "com.microsoft"


@dataclass
class _Shared:
    """What a graph and the bodies of its loops have in common."""

    prefix: str
    count: int = 0
    constants: dict[tuple[str, tuple[int, ...], bytes], str] = field(default_factory=dict)
    initializers: list[TensorProto] = field(default_factory=list)

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{self.prefix}/{kind}_{self.count}"


class Wire:
    """A tensor of the graph; arithmetic on it writes nodes. Comparisons give booleans."""

    def __init__(self, graph: "Wires", name: str) -> None:
        self.graph = graph
        self.name = name

    def _with(self, op: str, other: Value, swapped: bool = False) -> "Wire":
        return self.graph.op(op, *((other, self) if swapped else (self, other)))

    def __add__(self, other: Value) -> "Wire":
        return self._with("Add", other)

    def __sub__(self, other: Value) -> "Wire":
        return self._with("Sub", other)

    def __rsub__(self, other: Value) -> "Wire":
        return self._with("Sub", other, swapped=True)

    def __mul__(self, other: Value) -> "Wire":
        return self._with("Mul", other)

    def __floordiv__(self, other: Value) -> "Wire":
        return self._with("Div", other)

    def __mod__(self, other: Value) -> "Wire":
        return self._with("Mod", other)

    def __lt__(self, other: Value) -> "Wire":
        return self._with("Less", other)

    def __gt__(self, other: Value) -> "Wire":
        return self._with("Greater", other)

    def __le__(self, other: Value) -> "Wire":
        return self._with("LessOrEqual", other)

    def __ge__(self, other: Value) -> "Wire":
        return self._with("GreaterOrEqual", other)

    def __and__(self, other: Value) -> "Wire":
        return self._with("And", other)

    def __or__(self, other: Value) -> "Wire":
        return self._with("Or", other)

    def __invert__(self) -> "Wire":
        return self.graph.op("Not", self)

    def equals(self, other: Value) -> "Wire":
        """Elementwise equality."""
        return self._with("Equal", other)


class Wires:
    """Nodes of one graph, or of the body of a loop in it."""

    def __init__(self, prefix: str = "text", shared: _Shared | None = None) -> None:
        self.shared = shared or _Shared(prefix)
        self.nodes: list[onnx.NodeProto] = []

    def constant(self, value: Any) -> Wire:
        """A constant; numbers are int64 unless they are booleans, floats or arrays of a type."""
        array = np.asarray(value)
        if array.dtype.kind in "iu" and not isinstance(value, np.ndarray):
            array = array.astype(np.int64)
        if array.dtype.kind == "f" and not isinstance(value, np.ndarray):
            array = array.astype(np.float32)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.shared.constants:
            name = self.shared.name("constant")
            self.shared.constants[key] = name
            self.shared.initializers.append(numpy_helper.from_array(array, name))
        return Wire(self, self.shared.constants[key])

    def strings(self, values: Sequence[str]) -> Wire:
        """A constant of strings."""
        name = self.shared.name("strings")
        encoded: Any = [value.encode("utf-8") for value in values]
        self.shared.initializers.append(
            helper.make_tensor(name, TensorProto.STRING, [len(values)], encoded)
        )
        return Wire(self, name)

    def wire(self, value: Value) -> Wire:
        """`value` as a wire of this graph, also one of the graph around it."""
        return Wire(self, value.name) if isinstance(value, Wire) else self.constant(value)

    def ops(
        self, op: str, *inputs: Value | None, outputs: int, domain: str = "", **attributes: Any
    ) -> list[Wire]:
        """Writes a node with several outputs; an input of None is left out."""
        names = ["" if value is None else self.wire(value).name for value in inputs]
        results = [self.shared.name(op) for _ in range(outputs)]
        node = helper.make_node(op, names, results, results[0], domain=domain, **attributes)
        node.attribute.sort(key=lambda attribute: attribute.name)
        self.nodes.append(node)
        return [Wire(self, name) for name in results]

    def op(self, op: str, *inputs: Value | None, domain: str = "", **attributes: Any) -> Wire:
        """Writes a node with one output."""
        return self.ops(op, *inputs, outputs=1, domain=domain, **attributes)[0]

    # Words for what is written often; x [N], all int64 unless they are conditions

    def cast(self, x: Value, dtype: int = TensorProto.INT64) -> Wire:
        return self.op("Cast", x, to=dtype)

    def size(self, x: Value) -> Wire:
        """Number of elements, [1]."""
        return self.op("Reshape", self.op("Size", x), [-1])

    def total(self, x: Value) -> Wire:
        """Sum of all elements, [1]."""
        return self.op("ReduceSum", x, [0], keepdims=1)

    def take(self, table: Value, index: Value) -> Wire:
        """Elements (or rows) of `table`."""
        return self.op("Gather", table, index, axis=0)

    def keep(self, x: Value, condition: Value) -> Wire:
        """Elements where `condition` holds."""
        return self.op("Compress", x, condition, axis=0)

    def where(self, condition: Value, yes: Value, no: Value) -> Wire:
        return self.op("Where", condition, yes, no)

    def join(self, *parts: Value) -> Wire:
        """Arrays one after the other."""
        return self.op("Concat", *parts, axis=0)

    def upto(self, count: Value) -> Wire:
        """0, 1, ..., count - 1, for count [1]."""
        return self.op("Range", 0, self.op("Squeeze", count, [0]), 1)

    def full(self, value: Any, count: Value) -> Wire:
        """`count` [1] times the value; a Python number or bool, or a typed array of one."""
        array = np.asarray(value).reshape(1)
        array = array.astype(np.int64) if array.dtype.kind in "iu" else array
        return self.op("ConstantOfShape", count, value=numpy_helper.from_array(array, ""))

    def sums(self, x: Value, exclusive: bool = False) -> Wire:
        """Running sums."""
        return self.op("CumSum", x, 0, exclusive=int(exclusive))

    def put(self, base: Value, index: Value, values: Value, reduction: str = "none") -> Wire:
        """`base` with `values` at `index`."""
        return self.op("ScatterElements", base, index, values, axis=0, reduction=reduction)

    def positions(self, condition: Value) -> Wire:
        """Indices where `condition` holds."""
        return self.op("Squeeze", self.op("NonZero", condition), [0])

    def before(self, x: Value, fill: Any, by: int = 1) -> Wire:
        """Each element's neighbour `by` places before it, `fill` where there is none."""
        return self.op("Slice", self.join([fill] * by, x), [0], self.op("Shape", x), [0])

    def after(self, x: Value, fill: Any, by: int = 1) -> Wire:
        """Each element's neighbour `by` places after it, `fill` where there is none."""
        return self.op("Slice", self.join(x, [fill] * by), [by], [np.iinfo(np.int64).max], [0])

    def repeats(self, counts: Value) -> tuple[Wire, Wire]:
        """Element i `counts[i]` times: for each place, i and which of its repetitions it is."""
        counts = self.wire(counts)
        count = self.total(counts)
        sources = self.positions(counts > 0)
        starts = self.sums(counts, exclusive=True)
        begins = self.put(self.full(0, count), self.take(starts, sources), _ones(self, sources))
        source = self.take(sources, self.sums(begins) - 1)
        return source, self.upto(count) - self.take(starts, source)

    def per_row(self, rows: Value, count: Value) -> Wire:
        """How many elements each of `count` [1] rows has."""
        return self.put(self.full(0, count), rows, _ones(self, rows), "add")

    def loop(
        self,
        first: Sequence[Value],
        body: Callable[..., tuple[Wire, list[Wire]]],
        kinds: Sequence[int],
        rounds: Value | None = None,
    ) -> list[Wire]:
        """Repeats `body(graph, round, *state) -> (whether to go on, state)`; returns the state.

        Args:
            first: The state to begin with.
            body: Writes into the graph it is given, which sees the wires around it. What it returns
                beyond the state is stacked, one row per round.
            kinds: Element types of what it returns.
            rounds: How many at most; None for no limit.
        """
        inner = Wires(shared=self.shared)
        turn, on = self.shared.name("round"), self.shared.name("condition")
        names = [self.shared.name("state") for _ in first]
        going, state = body(inner, Wire(inner, turn), *[Wire(inner, name) for name in names])
        results = [inner.op("Identity", value).name for value in (going, *state)]

        def info(name: str, kind: int, shape: list[int] | None = None) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, kind, shape)

        graph = helper.make_graph(
            inner.nodes,
            self.shared.name("body"),
            [
                info(turn, TensorProto.INT64, []),
                info(on, TensorProto.BOOL, []),
                *map(info, names, kinds),
            ],
            [info(results[0], TensorProto.BOOL, []), *map(info, results[1:], kinds)],
        )
        return self.ops("Loop", rounds, True, *first, outputs=len(kinds), body=graph)


def _ones(graph: Wires, like: Value) -> Wire:
    return graph.full(1, graph.op("Shape", like))
