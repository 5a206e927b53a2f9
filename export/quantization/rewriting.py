"""Puts quantised operators in the place of linear maps and look-ups.

The targets' operators: `onnxruntime` has DynamicQuantizeMatMul, MatMulNBits and
GatherBlockQuantized; `portable` says the same with the standard DynamicQuantizeLinear,
MatMulInteger and DequantizeLinear.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from export.graphs import KEEP
from export.lowering import MICROSOFT
from export.onnx import Converted, all_nodes, graphs_of
from export.quantization.finding import Finder, Linear
from export.quantization.settings import Kind, Quantization
from export.quantization.weights import by_block, by_channel
from export.weights import Computed, joined, transposed

Ranges = Mapping[str, tuple[float, float]]
"""Smallest and largest value of each tensor that is brought to 8 bits, by its name."""


def quantized(
    converted: Converted, settings: Quantization, target: str, ranges: Ranges | None = None
) -> Converted:
    """A graph with quantised weights; `converted` stays as it is.

    Args:
        converted: A float32 graph.
        settings: What to do.
        target: The target it was converted for.
        ranges: For "int8-static", what was seen in calibration.

    What a target does not have was refused before, by `export.precision`.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(converted.proto)
    work = replace(converted, proto=proto, weights=dict(converted.weights))
    rewriting = _Rewriting(work, settings, target, ranges)
    rewriting.run()
    return work


class _Rewriting:
    def __init__(
        self, work: Converted, settings: Quantization, target: str, ranges: Ranges | None
    ) -> None:
        self.work, self.settings, self.ranges = work, settings, ranges
        self.fused = target == "onnxruntime"
        self.finder = Finder(work)
        self.kind = settings.kind_of(work.graph.name)
        self.steps = KEEP in work.graph.defaults  # the head meets one position of each row
        self.dropped: set[str] = set()  # nodes, by their first output
        self.placed: dict[str, list[onnx.NodeProto]] = {}  # what stands in a node's place
        self.levels: dict[str, tuple[str, str, str]] = {}  # a tensor in 8 bits, scale, zero point

    def run(self) -> None:
        by_output: dict[str, tuple[Linear, Kind]] = {}
        for linear in self.finder.linears():
            kind = self._kind(linear)
            if kind != "float32":
                by_output[linear.output] = (linear, kind)
        if self.fused:
            self._join_grouped(by_output)
            self._join_siblings(by_output)
        for linear, kind in by_output.values():
            self._replace(linear.nodes, self._map(linear, kind))
        self._tables()
        self._finish()

    def _kind(self, linear: Linear) -> Kind:
        if linear.weight in self.settings.leave:
            return "float32"
        if not linear.head:
            return self.kind
        wanted = self.settings.head or "int8"
        if wanted == "int8" and self.fused and self.steps and not self._beams():
            return "int8-weights"  # one position: the weights' bytes are all the time it takes
        if wanted in ("int8-weights", "int4") and not self.fused:
            return "int8-weights"
        return wanted

    def _beams(self) -> bool:
        """Whether the head meets several rows as a rule, as the beams of an encoder-decoder are;
        its table by rows, which the encoder reads, is there anyway.
        """
        return self.work.graph.name == "decoder" and self.kind == "int8"

    def _replace(self, old: Sequence[onnx.NodeProto], new: list[onnx.NodeProto]) -> None:
        self.dropped |= {node.output[0] for node in old}
        self.placed[old[-1].output[0]] = new

    # --- linear maps ---

    def _map(self, linear: Linear, kind: Kind) -> list[onnx.NodeProto]:
        if kind in ("int8-weights", "int4"):
            return self._by_block(linear, 4 if kind == "int4" else 8)
        return self._by_channel(linear, static=kind == "int8-static")

    def _by_block(self, linear: Linear, bits: int) -> list[onnx.NodeProto]:
        weight, name = self.work.weights[linear.weight], linear.weight
        if not self.fused:
            return self._dequantized(linear)
        size, symmetric = self.settings.block_size, self.settings.symmetric
        new = by_block(f"{name}/int{bits}", weight, bits, size, symmetric, linear.rows)
        self.work.weights.update(new)
        stem = f"{name}/int{bits}"
        count, width = weight.shape if linear.rows else weight.shape[::-1]
        inputs = [linear.x, stem, f"{stem}/scale"]
        inputs += ["" if symmetric else f"{stem}/zero_point", "", linear.bias or ""]
        facts = {"K": width, "N": count, "bits": bits, "block_size": size, "accuracy_level": 4}
        return [_node("MatMulNBits", inputs, [linear.output], MICROSOFT, **facts)]

    def _channels(self, linear: Linear) -> str:
        """Adds the map's weight in 8 bits by channel, [K, N]; returns its name."""
        weight, name = self.work.weights[linear.weight], f"{linear.weight}/int8"
        if linear.rows:
            weight, name = transposed(weight), f"{linear.weight}/transposed/int8"
        self.work.weights.update(by_channel(name, weight, -2))
        return name

    def _by_channel(self, linear: Linear, static: bool) -> list[onnx.NodeProto]:
        name = self._channels(linear)
        if self.fused and not static:
            inputs = [linear.x, name, f"{name}/scale", "", linear.bias or ""]
            return [_node("DynamicQuantizeMatMul", inputs, [linear.output], MICROSOFT)]
        nodes, (levels, scale, zero) = self._levels(linear.x, static)
        if self.fused:
            inputs = [levels, name, scale, f"{name}/scale", zero, "", linear.bias or ""]
            return [*nodes, _node("MatMulIntegerToFloat", inputs, [linear.output], MICROSOFT)]
        out = linear.output
        whole, wide, factor = f"{out}/whole", f"{out}/wide", f"{out}/scale"
        result = f"{out}/scaled" if linear.bias else out
        nodes += [
            _node("MatMulInteger", [levels, name, zero], [whole]),
            _node("Cast", [whole], [wide], to=onnx.TensorProto.FLOAT),
            _node("Mul", [scale, f"{name}/scale"], [factor]),
            _node("Mul", [wide, factor], [result]),
        ]
        if linear.bias:
            nodes.append(_node("Add", [result, linear.bias], [out]))
        return nodes

    def _dequantized(self, linear: Linear) -> list[onnx.NodeProto]:
        name = self._channels(linear)
        result = f"{linear.output}/product" if linear.bias else linear.output
        nodes = [
            _node("DequantizeLinear", [name, f"{name}/scale"], [f"{name}/float32"], axis=1),
            _node("MatMul", [linear.x, f"{name}/float32"], [result]),
        ]
        if linear.bias:
            nodes.append(_node("Add", [result, linear.bias], [linear.output]))
        return nodes

    def _levels(self, x: str, static: bool) -> tuple[list[onnx.NodeProto], tuple[str, str, str]]:
        """A tensor in 8 bits, once for all who read it: (new nodes, its names)."""
        if x in self.levels:
            return [], self.levels[x]
        names = self.levels[x] = (f"{x}/levels", f"{x}/scale", f"{x}/zero_point")
        if not static:
            return [_node("DynamicQuantizeLinear", [x], list(names))], names
        assert self.ranges is not None
        low, high = self.ranges[x]
        low, high = min(low, 0.0), max(high, 0.0)
        scale = np.float32((high - low) / 255 or 1)
        zero = np.uint8(np.clip(np.rint(-low / scale), 0, 255))
        values: list[np.ndarray] = [np.asarray(scale), np.asarray(zero)]
        for name, value in zip(names[1:], values, strict=True):
            self.work.proto.graph.initializer.append(numpy_helper.from_array(value, name))
        return [_node("QuantizeLinear", [x, *names[1:]], [names[0]])], names

    # --- joint maps ---

    def _join_grouped(self, by_output: dict[str, tuple[Linear, Kind]]) -> None:
        """Queries, keys and values that GroupQueryAttention takes side by side are one map."""
        for node in self.work.proto.graph.node:
            if node.op_type != "GroupQueryAttention":
                continue
            found = [by_output.get(name) for name in node.input[:3]]
            maps = [linear for linear, _ in filter(None, found)]
            kinds = {kind for _, kind in filter(None, found)}
            joinable = (
                len(maps) == 3
                and len(kinds) == 1
                and len({linear.x for linear in maps}) == 1
                and len({linear.bias is None for linear in maps}) == 1
                and all(self.finder.alone(linear.output) is not None for linear in maps)
            )
            if not joinable:
                continue
            for linear in maps:
                del by_output[linear.output]
            whole = self._joined_map(maps, f"{maps[0].output}/query_key_value")
            new = _copy(node)
            new.input[0], new.input[1], new.input[2] = whole.output, "", ""
            self.dropped |= {old.output[0] for old in whole.nodes}
            self._replace([node], [*self._map(whole, kinds.pop()), new])

    def _joined_map(self, maps: list[Linear], output: str) -> Linear:
        names = [linear.weight for linear in maps]
        name = _joint_name(names)
        self.work.weights[name] = joined([self.work.weights[n] for n in names])
        bias = None
        if maps[0].bias is not None:
            biases = [linear.bias for linear in maps if linear.bias is not None]
            bias = _joint_name(biases)
            self.work.weights[bias] = joined([self.work.weights[n] for n in biases])
        nodes = tuple(node for linear in maps for node in linear.nodes)
        return Linear(nodes, maps[0].x, name, bias, output, rows=False, head=False)

    def _join_siblings(self, by_output: dict[str, tuple[Linear, Kind]]) -> None:
        """Maps of one layer that read the same, such as gate and up, become one map and a split."""
        families: dict[tuple[Any, ...], list[Linear]] = {}
        for linear, kind in by_output.values():
            layer = linear.weight if linear.head else linear.weight.rsplit("/", 2)[0]
            families.setdefault((linear.x, layer, kind, linear.bias is None), []).append(linear)
        for (_, _, kind, _), maps in families.items():
            if len(maps) < 2:
                continue
            maps = sorted(maps, key=_place)
            for linear in maps:
                del by_output[linear.output]
            whole = self._joined_map(maps, f"{maps[0].output}/joint")
            sizes = f"{whole.output}/sizes"
            widths = np.array([self.work.weights[m.weight].shape[1] for m in maps], "int64")
            self.work.proto.graph.initializer.append(numpy_helper.from_array(widths, sizes))
            outputs = [linear.output for linear in maps]
            split = _node("Split", [whole.output, sizes], outputs, axis=-1)
            self._replace(whole.nodes, [*self._map(whole, kind), split])

    # --- tables ---

    def _tables(self) -> None:
        """Rows in 8 bits. What a table and the head share, both read from the same bytes."""
        shared = {
            name.rsplit("/", 1)[0]: name
            for name in self.work.weights
            if name.endswith(("/int4", "/int8")) and not name.endswith("transposed/int8")
        }
        for node, table in list(self.finder.tables()):
            weight = self.work.weights[table]
            if table in self.settings.leave or self.settings.embedding == "float32":
                continue
            row, out = f"{node.output[0]}/row", node.output[0]
            stem = shared.get(table)
            if stem is not None and weight.shape[1] % self.settings.block_size == 0:
                self._replace([node], [self._block_row(node, stem, weight, out)])
                continue
            name = f"{table}/rows/int8"
            if name not in self.work.weights:
                self.work.weights.update(by_channel(name, weight, 1))
            ids, scale = node.input[1], f"{out}/scale"
            new = [
                _node("Gather", [name, ids], [row], axis=0),
                _node("Cast", [row], [f"{row}/wide"], to=onnx.TensorProto.FLOAT),
                _node("Gather", [f"{name}/scale", ids], [scale], axis=0),
                _node("Mul", [f"{row}/wide", scale], [out]),
            ]
            self._replace([node], new)

    def _block_row(self, node: onnx.NodeProto, stem: str, weight: Any, out: str) -> onnx.NodeProto:
        packed = self.work.weights[stem]
        flat = f"{stem}/rows"
        shape = (packed.shape[0], packed.shape[1] * packed.shape[2])
        self.work.weights[flat] = Computed(
            shape, "uint8", lambda: np.asarray(packed).reshape(shape), key=stem
        )
        inputs = [flat, node.input[1], f"{stem}/scale"]
        if not self.settings.symmetric:
            inputs.append(f"{stem}/zero_point")
        facts = {"bits": 4 if stem.endswith("int4") else 8, "block_size": self.settings.block_size}
        return _node(
            "GatherBlockQuantized",
            inputs,
            [out],
            MICROSOFT,
            gather_axis=0,
            quantize_axis=1,
            **facts,
        )

    # --- the end ---

    def _finish(self) -> None:
        """Puts the new nodes in their places, and forgets what nothing reads any more."""
        graph = self.work.proto.graph
        for holder in graphs_of(graph):
            nodes: list[onnx.NodeProto] = []
            for node in holder.node:
                if node.output[0] in self.placed:
                    nodes += self.placed[node.output[0]]
                elif node.output[0] not in self.dropped:
                    nodes.append(_copy(node))
            del holder.node[:]
            holder.node.extend(nodes)
        _sort(graph)
        used = {name for holder in graphs_of(graph) for node in holder.node for name in node.input}
        for name in set(self.work.weights) - used:
            del self.work.weights[name]
        kept = [t for t in graph.initializer if t.name in used | set(self.work.graph.defaults)]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        domains = {entry.domain for entry in self.work.proto.opset_import}
        if self.fused and MICROSOFT not in domains:
            self.work.proto.opset_import.append(onnx.helper.make_opsetid(MICROSOFT, 1))


def _place(linear: Linear) -> tuple[int, str]:
    """Where a map stands among its siblings, however the conversion ordered them."""
    name = linear.weight.rsplit("/", 2)[-2]
    order = ("query", "key", "value", "gate", "up")
    return (order.index(name) if name in order else len(order), linear.weight)


def _joint_name(names: list[str]) -> str:
    """block_0/attention/{query,key,value}/kernel -> block_0/attention/query_key_value/kernel."""
    layer, _, kind = names[0].rsplit("/", 2)
    return f"{layer}/{'_'.join(name.rsplit('/', 2)[1] for name in names)}/{kind}"


def _node(
    op_type: str, inputs: Sequence[str], outputs: Sequence[str], domain: str = "", **facts: Any
) -> onnx.NodeProto:
    given = list(inputs)
    while given and not given[-1]:
        given.pop()
    return onnx.helper.make_node(
        op_type, given, list(outputs), name=f"{outputs[0]}/{op_type}", domain=domain, **facts
    )


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def _sort(graph: onnx.GraphProto) -> None:
    """Puts each node behind those it reads from, else in the order it has; drops nodes that nobody
    reads.
    """
    producer = {name: node for node in graph.node for name in node.output if name}
    done: set[str] = set()
    ordered: list[onnx.NodeProto] = []

    def place(node: onnx.NodeProto) -> None:
        if node.output[0] in done:
            return
        done.add(node.output[0])
        for name in _reads(node):
            if name in producer:
                place(producer[name])
        ordered.append(node)

    for node in graph.node:
        place(node)
    read = {value.name for value in graph.output}
    kept = []
    for node in reversed(ordered):
        if read & set(node.output):
            read |= set(_reads(node))
            kept.append(_copy(node))
    del graph.node[:]
    graph.node.extend(reversed(kept))


def _reads(node: onnx.NodeProto) -> list[str]:
    """What a node reads, the graphs it holds included."""
    names = list(node.input)
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            names += [name for inner in all_nodes(attribute.g) for name in inner.input]
    return names
