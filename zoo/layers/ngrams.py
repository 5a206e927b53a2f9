"""Embeddings of hashed token n-grams."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops as kops

from zoo import ops

_FACTOR = 31337
"""Of the polynomial hash: odd, and below 2^31 / `zoo.backbones.checks.MOST_BUCKETS`."""


class NgramEmbedding(keras.layers.Layer):
    """The sum of the embeddings of the n-grams that end at each position, one table row per hash
    (Bojanowski et al., 2017; Pagnoni et al., 2024, section 3.2). Shapes: [B, S] ids -> [B, S, D].

    Rows begin as zeros: an n-gram that training never met adds nothing.

    Args:
        lengths: n of each kind of n-gram.
        buckets: Rows for each n; n-grams that fall together share a row.
        width: D.
    """

    def __init__(self, lengths: Sequence[int], buckets: int, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lengths = tuple(lengths)
        self.buckets = buckets
        self.width = width

    def build(self, input_shape: Any = None) -> None:
        shape = (len(self.lengths) * self.buckets, self.width)
        self.table = self.add_weight(shape=shape, initializer="zeros", name="table")

    def hashes(self, ids: Any) -> Any:
        """[B, S, number of lengths]: each n-gram's row in the table."""
        ids = kops.cast(ids, "int32") + 1  # 0 stands before the text
        longest = max(self.lengths)
        padded = kops.pad(ids, ((0, 0), (longest - 1, 0)))
        length = kops.shape(ids)[1]
        found = []
        for number, n in enumerate(self.lengths):
            value = kops.zeros_like(ids)
            for back in range(n - 1, -1, -1):
                first = longest - 1 - back
                value = (value * _FACTOR + padded[:, first : first + length]) % self.buckets
            found.append(value + number * self.buckets)
        return kops.stack(found, axis=-1)

    def call(self, ids: Any) -> Any:
        return kops.sum(ops.embed(self.hashes(ids), self.table), axis=-2)
