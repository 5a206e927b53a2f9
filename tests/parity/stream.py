"""Weights that depend on a tensor's name and shape alone, so that stored goldens need no weights.

`numpy.random.RandomState` is frozen by numpy's own promise: its numbers never change.
"""

import hashlib
import math

import numpy as np

SPREADS = {"scale": 0.2, "offset": 0.1, "matrix": 0.15}
"""Standard deviation by the kind of a tensor; a scale stands around 1, all else around 0."""


def kind_of(values: np.ndarray) -> str:
    """What a tensor is, told from the reference's own initial values: norms begin at 1, biases at
    0, sinusoids are themselves, all else is drawn.
    """
    if values.ndim == 2 and np.allclose(values, sinusoids(*values.shape), atol=1e-6):
        return "sinusoids"
    if values.ndim == 1 and values.size and np.all(values == 1):
        return "scale"
    if values.ndim == 1 and np.all(values == 0):
        return "offset"
    return "matrix"


def sinusoids(length: int, width: int) -> np.ndarray:
    """[length, width] sines of each position in the first half, cosines in the second."""
    rates = 10_000.0 ** (-2.0 * (np.arange(width) // 2) / width)
    angles = np.arange(length)[:, None] * rates
    return np.concatenate([np.sin(angles[:, 0::2]), np.cos(angles[:, 1::2])], 1).astype("float32")


def tensor(name: str, shape: tuple[int, ...], kind: str, spread: float = 1.0) -> np.ndarray:
    """The float32 values of the tensor `name`; `spread` widens its matrices."""
    if kind == "sinusoids":
        return sinusoids(*shape)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    noise = np.random.RandomState(seed).standard_normal(math.prod(shape)).reshape(shape)
    width = SPREADS[kind] * (spread if kind == "matrix" else 1.0)
    return ((kind == "scale") + width * noise).astype(np.float32)
