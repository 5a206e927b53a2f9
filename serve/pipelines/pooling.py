"""One vector of the states of many tokens, and smaller forms of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

POOLINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda states: states.mean(axis=0),
    "cls": lambda states: states[0].copy(),
    "last": lambda states: states[-1].copy(),
    "max": lambda states: states.max(axis=0),
}
"""From the states of a text's real tokens, special ones included, [tokens, width] to [width]."""

PRECISIONS = ("float32", "int8", "binary")


def join(vectors: np.ndarray, weights: Sequence[int], pooling: str | None) -> np.ndarray:
    """The vector of a long text from those of its windows, [windows, width].

    "max" takes the largest of each number and "last" the last window's, as over all tokens at
    once; otherwise it is the mean, weighted by the tokens that each window is the first to have.
    """
    if len(vectors) == 1:
        return vectors[0]
    if pooling == "max":
        return vectors.max(axis=0)
    if pooling == "last":
        return vectors[-1]
    return np.average(vectors, axis=0, weights=weights).astype(np.float32)


def shorten(vector: np.ndarray, dimensions: int | None, normalize: bool) -> np.ndarray:
    """The first numbers of a vector, at length 1 if wanted (a vector of zeros stays one)."""
    vector = vector[:dimensions]
    length = np.linalg.norm(vector) if normalize else 1.0
    return vector / length if length > 0 else vector


def quantize(vectors: np.ndarray, precision: str) -> np.ndarray:
    """Smaller forms of vectors, [..., width].

    "int8" scales each vector by itself, which keeps its direction and so its cosines; "binary"
    keeps the signs, [..., width / 8] of uint8, whose cosine is 1 - 2 x (share of bits that differ).
    """
    if precision == "int8":
        largest = np.abs(vectors).max(axis=-1, keepdims=True)
        return np.rint(vectors * (127 / np.where(largest > 0, largest, 1))).astype(np.int8)
    if precision == "binary":
        return np.packbits(vectors > 0, axis=-1)
    return vectors
