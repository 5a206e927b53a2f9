"""Linear maps and embeddings, in terms of the primitives."""

from typing import Any

import keras
from keras import ops as kops

from zoo import ops


def matrix_initializer(initializer_range: float) -> keras.initializers.Initializer:
    """What matrices begin as: a truncated normal distribution."""
    return keras.initializers.TruncatedNormal(stddev=initializer_range)


class Linear(keras.layers.Layer):
    """y = x W + b. Shapes: [..., in] -> [..., units]; kernel [in, units], bias [units]."""

    def __init__(
        self, units: int, use_bias: bool = True, initializer_range: float = 0.02, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.use_bias = use_bias
        self.initializer_range = initializer_range

    def build(self, input_shape: tuple) -> None:
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units),
            initializer=matrix_initializer(self.initializer_range),
            name="kernel",
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")

    def call(self, x: Any) -> Any:
        return ops.linear(x, self.kernel, self.bias)


class Embedding(keras.layers.Layer):
    """Rows of a table. Shapes: ids [...] -> [..., D]; table [V, D]. `logits` uses the same table as
    a head.
    """

    def __init__(
        self, size: int, width: int, initializer_range: float = 0.02, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.size = size
        self.width = width
        self.initializer_range = initializer_range

    def build(self, input_shape: Any = None) -> None:
        self.table = self.add_weight(
            shape=(self.size, self.width),
            initializer=matrix_initializer(self.initializer_range),
            name="table",
        )

    def call(self, ids: Any) -> Any:
        return ops.embed(ids, self.table)

    def logits(self, x: Any) -> Any:
        """[..., D] -> [..., V], the scores of every row against `x`."""
        return ops.linear(x, kops.cast(self.table, x.dtype), transpose=True)
