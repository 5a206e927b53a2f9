"""Weights that are made of others, when their values are asked for: one at a time, at the end."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from export.errors import ExportError


class Computed:
    """A weight that is made of others when its values are asked for.

    Args:
        shape: Its shape.
        dtype: Its type.
        compute: Gives the values.
        key: What it is stored as; weights of one key share their bytes.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: str,
        compute: Callable[[], np.ndarray],
        key: str | None = None,
    ) -> None:
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.key = key
        self._compute = compute

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self._compute()
        assert values.shape == self.shape and values.dtype == self.dtype
        return values if dtype is None else values.astype(dtype)


def joined(weights: Sequence[Any]) -> Any:
    """The weights side by side on the last axis."""
    shape = (*weights[0].shape[:-1], sum(weight.shape[-1] for weight in weights))
    dtype = str(weights[0].dtype)
    return Computed(
        shape,
        dtype,
        lambda: np.concatenate([values_of(w) for w in weights], axis=-1).astype(dtype),
    )


def transposed(weight: Any) -> Any:
    """[V, D] -> [D, V]."""
    return Computed(
        weight.shape[::-1], "float32", lambda: np.ascontiguousarray(values_of(weight).T)
    )


def values_of(weight: Any) -> np.ndarray:
    """A weight's values in float32."""
    values = np.asarray(weight, "float32")
    if not np.isfinite(values).all():
        name = getattr(weight, "path", "a weight")
        raise ExportError(f"{name} holds infinity or not-a-number: it cannot be quantised")
    return values
