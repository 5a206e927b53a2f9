"""Cross attention in which several rows of the decoder read one row of the encoder.

The beams of a text, or its samples, attend to the same keys and values. A step whose memory has
fewer rows than the text that is written keeps them once: row i reads row i // k of the memory, with
k = rows / memory rows, from the shapes that a run comes with.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from export.graphs import ENCODER_BATCH, Graph
from export.lowering import emit, once
from zoo import ops

Table = Mapping[str, Callable[..., Any]]


def for_graph(table: Table, graph: Graph) -> Table:
    """The lowering of a graph: one whose memory has a batch axis of its own shares it."""
    shares = any(ENCODER_BATCH in tensor.axes for tensor in graph.inputs)
    return sharing(table) if shares else table


def sharing(table: Table) -> Table:
    """A lowering's table with cross attention over memory of fewer rows.

    No position of the decoder is hidden from another by cross attention, so the queries of the k
    rows that share a memory stand behind each other as one row: [B k, S, W] is taken for
    [B, k S, W], which moves nothing, and the answer is turned back.
    """
    own = table.get("attention", ops.REFERENCE["attention"])
    cross = table.get("attention", _scaled_first)

    def attention(query: Any, key: Any, value: Any, span: Any, **facts: Any) -> Any:
        if key.shape.rank != 4:  # of its own text
            return own(query, key, value, span, **facts)
        width = query.shape[-1]
        inner = once(lambda: _sizes(key, 1, -1, width), "memory rows", width)
        outer = once(lambda: _sizes(query, 2, width), "decoder rows", width)
        mixed, present = cross(_reshaped(query, inner), key, value, span, **facts)
        return _reshaped(mixed, outer), present

    return {**table, "attention": attention}


def _scaled_first(query: Any, key: Any, value: Any, span: Any, **facts: Any) -> Any:
    """The reference, with the scale between the rows' reshape and that which splits the heads.

    tf2onnx makes one of two reshapes in a row, for which a size of 0 in the second would be that of
    another axis.
    """
    scaled = query * facts.pop("scale")
    return ops.REFERENCE["attention"](scaled, key, value, span, scale=1.0, **facts)


def _sizes(x: Any, count: int, *rest: int) -> tf.Tensor:
    """The first `count` sizes of `x`, and the rest as given."""
    known = emit("Shape", [x], [("int64", [count])], domain="", start=0, end=count)[0]
    given = ops.constant(f"sizes_{'_'.join(map(str, rest))}", np.array(rest, "int64"))
    shape = ("int64", [count + len(rest)])
    return emit("Concat", [known, given], [shape], domain="", axis=0)[0]


def _reshaped(x: Any, sizes: tf.Tensor) -> tf.Tensor:
    shape = [None, None, x.shape[-1]]
    return emit("Reshape", [x, sizes], [(x.dtype.name, shape)], domain="")[0]
