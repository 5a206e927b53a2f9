"""Weights in 8 and 4 bits: per channel in NumPy, per block by ONNX Runtime's own quantiser.

Nothing is computed before a bundle's writer asks for the values, one weight at a time.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from export.weights import Computed, values_of


def by_channel(name: str, weight: Any, axis: int) -> dict[str, Any]:
    """`name` in int8 with a scale for what the other axes share: values = name * scale.

    Args:
        name: The weight's name; the scales are called `name`/scale.
        weight: Any shape.
        axis: The axis over which a scale is shared; it is kept, of size 1, where the weight is
            looked up, and taken off ([K, N] -> [N]) for -2.
    """
    lookup = axis == 1
    largest = _Parts(lambda: np.abs(values_of(weight)).max(axis=axis, keepdims=True))
    shape = list(weight.shape)
    shape[axis] = 1

    def scale() -> np.ndarray:
        values = largest().astype("float32") / 127
        return np.where(values == 0, np.float32(1), values)

    def whole() -> np.ndarray:
        return np.clip(np.rint(values_of(weight) / scale()), -127, 127).astype("int8")

    scales = shape if lookup else [weight.shape[-1]]
    return {
        name: Computed(weight.shape, "int8", whole),
        f"{name}/scale": Computed(scales, "float32", lambda: scale().reshape(scales)),
    }


def by_block(
    name: str, weight: Any, bits: int, block_size: int, symmetric: bool, rows: bool = False
) -> dict[str, Any]:
    """`name` as MatMulNBits takes it: [N, blocks of K, bytes], scales [N, blocks].

    Args:
        name: The weight's name; beside it stand `name`/scale and, unless symmetric,
            `name`/zero_point.
        weight: [K, N]; [N, K] where `rows`.
        bits: 4 or 8.
        block_size: Weights of a block.
        symmetric: Without zero points.
        rows: See `weight`.
    """
    from onnxruntime.capi import _pybind_state as native

    width, count = weight.shape[::-1] if rows else weight.shape
    blocks = -(-width // block_size)
    quantize = native.quantize_matmul_4bits if bits == 4 else native.quantize_matmul_8bits

    def compute() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        values = values_of(weight)
        values = np.ascontiguousarray(values.T if rows else values)
        packed = np.zeros((count, blocks, block_size * bits // 8), "uint8")
        scales = np.zeros((count, blocks), "float32")
        zeros = np.zeros((count, (blocks + 1) // 2 if bits == 4 else blocks), "uint8")
        quantize(packed, values, scales, zeros, block_size, count, width, symmetric)
        return packed, scales, zeros

    parts = _Parts(compute)
    shape = (count, blocks, block_size * bits // 8)
    found = {
        name: Computed(shape, "uint8", lambda: parts()[0], key=name),
        f"{name}/scale": Computed((count, blocks), "float32", lambda: parts()[1]),
    }
    if not symmetric:
        zeros = (count, (blocks + 1) // 2 if bits == 4 else blocks)
        found[f"{name}/zero_point"] = Computed(zeros, "uint8", lambda: parts()[2])
    return found


class _Parts:
    """What several weights are read from, one after another: computed once, and kept until another
    is asked for, so that a writer holds one weight at a time.
    """

    _latest: "_Parts | None" = None

    def __init__(self, compute: Callable[[], Any]) -> None:
        self._compute = compute
        self._result: Any = None

    def __call__(self) -> Any:
        if self._result is None:
            if _Parts._latest is not None:
                _Parts._latest._result = None
            _Parts._latest = self
            self._result = self._compute()
        return self._result
