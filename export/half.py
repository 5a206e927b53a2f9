"""Half precision in ONNX: float16 is computed in, bfloat16 is stored.

Runtimes' operators on the CPU know float16, or it is cast around them; hardly one knows bfloat16,
so such a graph would not load. A bfloat16 bundle keeps its matrices in half the bytes and casts
them to float32 where they are used: any runtime runs it, and those that fold constants cast once.
"""

import dataclasses
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto

from export.onnx import Converted, graphs_of

WIDE = "/float32"
"""What follows a weight's name in that of its float32 values."""


def computed_dtype(precision: str) -> str:
    """The type that a graph of this precision computes in, caches included."""
    return "float16" if precision == "float16" else "float32"


class Rounded:
    """A weight as bfloat16, rounded to the nearest when its values are asked for.

    Args:
        variable: float32 values of any shape.
    """

    def __init__(self, variable: Any) -> None:
        self.variable = variable
        self.shape = variable.shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = np.asarray(self.variable, "float32").astype(ml_dtypes.bfloat16)
        return values if dtype is None else values.astype(dtype)


def stored_in_bfloat16(converted: Converted) -> Converted:
    """The graph with its matrices in bfloat16; vectors, such as norms and biases, stay float32.

    Rows that are looked up are cast behind the look-up, everything else before its use.

    Args:
        converted: A graph that computes in float32; it is changed.
    """
    graph = converted.proto.graph
    rounded = {
        name: Rounded(variable)
        for name, variable in converted.weights.items()
        if len(variable.shape) > 1 and "float" in str(variable.dtype)
    }
    cast: dict[str, onnx.NodeProto] = {}
    for holder in graphs_of(graph):
        nodes = []
        for node in holder.node:
            nodes.append(node)
            if node.op_type == "Gather" and node.input[0] in rounded:
                found, stored = node.output[0], f"{node.output[0]}/bfloat16"
                node.output[0] = stored
                nodes.append(_to_float32(stored, found))
                continue
            for i, name in enumerate(node.input):
                if name in rounded:
                    cast.setdefault(name, _to_float32(name, name + WIDE))
                    node.input[i] = name + WIDE
        del holder.node[:]
        holder.node.extend(nodes)
    nodes = [*(cast[name] for name in sorted(cast)), *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    weights = {**converted.weights, **rounded}
    return dataclasses.replace(converted, weights=weights)


def _to_float32(name: str, output: str) -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [name], [output], name=output, to=TensorProto.FLOAT)
