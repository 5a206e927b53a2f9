"""How far two ways to compute the same thing may differ: the largest absolute difference, by dtype.

Beside each figure stands the largest difference measured, on a CPU; `pytest -v` prints what a run
measured.
"""

from typing import Any

import numpy as np

FLOAT32 = {
    "primitive": 2e-6,  # measured 0: primitives against numpy in float64
    "keras_layer": 2e-6,  # measured 0: primitives and layers against those of Keras
    "cached_step": 2e-4,  # measured 0: prefill and steps against the full pass, logits up to 40
    "recipe_accumulation": 1e-5,  # measured 0: weights after 6 updates in 2 or 4 parts against whole
    "replica_weights": 2e-5,  # measured 0: weights on 2 replicas or workers against one device
    "replica_loss": 2e-5,  # measured 0: losses on 2 replicas or workers against one device
}

BFLOAT16 = {
    "outputs": 0.2,  # measured 0: share of the largest output, against float32
}

FLOAT16 = {
    "outputs": 0.05,  # measured 0: share of the largest output, against float32
}

TABLES = {"float32": FLOAT32, "bfloat16": BFLOAT16, "float16": FLOAT16}

MEASURED: dict[tuple[str, str], float] = {}
"""Largest difference of each row that was asked for in this run."""


def close(found: Any, expected: Any, row: str, dtype: str = "float32") -> None:
    """Asserts that `found` has the shape of `expected` and is within the tolerance `row` of it."""
    found, expected = np.asarray(found, "float64"), np.asarray(expected, "float64")
    assert found.shape == expected.shape
    gap = float(np.abs(found - expected).max(initial=0.0))
    MEASURED[dtype, row] = max(gap, MEASURED.get((dtype, row), 0.0))
    assert gap <= TABLES[dtype][row], f"{dtype} {row}: differs by {gap:.3g}"
