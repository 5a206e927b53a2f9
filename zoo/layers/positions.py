"""How order enters a Transformer: added to embeddings, turning queries and keys, or added to the
scores.
"""

import math
from typing import Any

import keras
import numpy as np
from keras import ops as kops

from zoo import ops
from zoo.layers.linear import Embedding
from zoo.layers.span import Span


def sinusoids(length: int, width: int) -> np.ndarray:
    """[length, width] sines in the first half and cosines in the second (Vaswani et al., 2017, as
    in Marian).
    """
    half = (width + 1) // 2
    rates = np.exp(-math.log(10000.0) * np.arange(half) / max(half, 1))
    angles = np.outer(np.arange(length), rates)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)[:, :width].astype("float32")


def rotary_tables(length: int, dim: int, base: float) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines [length, dim / 2] of the rotary angles."""
    rates = base ** (-np.arange(0, dim, 2) / dim)
    angles = np.outer(np.arange(length), rates)
    return np.cos(angles).astype("float32"), np.sin(angles).astype("float32")


def alibi_slopes(num_heads: int) -> np.ndarray:
    """[num_heads] slopes of ALiBi (Press et al., 2022): powers of 2^(-8/n), interleaved where n is
    no power of two.
    """

    def powers(n: int) -> list[float]:
        start = 2.0 ** (-(2.0 ** -(math.log2(n) - 3)))
        return [start ** (i + 1) for i in range(n)]

    if math.log2(num_heads).is_integer():
        return np.array(powers(num_heads), "float32")
    closest = 2 ** math.floor(math.log2(num_heads))
    extra = powers(2 * closest)[0::2][: num_heads - closest]
    return np.array(powers(closest) + extra, "float32")


class AlibiBias(keras.layers.Layer):
    """-slope * |distance| for every head: [B or 1, num_heads, S, T]. No weights."""

    def __init__(self, num_heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.slopes = alibi_slopes(num_heads)

    def call(self, span: Span) -> Any:
        slopes = ops.constant("alibi_slopes", self.slopes.reshape(1, -1, 1, 1))
        distance = kops.cast(kops.abs(span.distance), "float32")
        return -slopes * kops.expand_dims(distance, 1)


class RelativeBias(keras.layers.Layer):
    """T5's learned bias per bucket of distance and head: [B or 1, num_heads, S, T] (Raffel et al.,
    2020).
    """

    def __init__(
        self, num_heads: int, buckets: int, max_distance: int, bidirectional: bool, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.buckets = buckets
        self.max_distance = max_distance
        self.bidirectional = bidirectional
        self.embedding = Embedding(buckets, num_heads, name="buckets")

    def build(self, input_shape: Any = None) -> None:
        self.embedding.build()

    def bucket(self, distance: Any) -> Any:
        """Bucket of each distance (query position less key position): exact when near, logarithmic
        when far.
        """
        buckets, first = self.buckets, 0
        if self.bidirectional:
            buckets //= 2
            first = kops.cast(distance < 0, "int32") * buckets
            distance = kops.abs(distance)
        else:
            distance = kops.maximum(distance, 0)
        exact = buckets // 2
        ratio = kops.cast(kops.maximum(distance, 1), "float32") / exact
        scale = (buckets - exact) / math.log(self.max_distance / exact)
        far = exact + kops.cast(kops.log(ratio) * scale, "int32")
        far = kops.minimum(far, buckets - 1)
        return first + kops.where(distance < exact, distance, far)

    def call(self, span: Span) -> Any:
        bias = self.embedding(self.bucket(span.distance))  # (B or 1, S, T, H)
        return kops.transpose(bias, (0, 3, 1, 2))
