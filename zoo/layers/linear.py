"""Linear maps and embeddings, in terms of the primitives."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops as kops

from zoo import ops

_zero: ContextVar[bool] = ContextVar("zero", default=False)


@contextlib.contextmanager
def zero_weights(on: bool = True) -> Iterator[None]:
    """Matrices made within begin as zeros: drawing numbers takes time, and a checkpoint follows."""
    token = _zero.set(on)
    try:
        yield
    finally:
        _zero.reset(token)


def matrix_initializer(initializer_range: float) -> keras.initializers.Initializer:
    """What matrices begin as: a truncated normal distribution (or zeros, see `zero_weights`)."""
    if _zero.get():
        return keras.initializers.Zeros()
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
