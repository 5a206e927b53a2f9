"""How far two ways to compute the same thing may differ: the largest absolute difference, by dtype.

Beside each figure stands the largest difference measured, on a CPU; `pytest -v` prints what a run
measured.
"""

from typing import Any

import numpy as np

FLOAT32 = {
    "primitive": 2e-6,  # measured 3.2e-7: primitives against numpy in float64
    "experts": 5e-6,  # measured 1.2e-6: mixtures of experts against numpy in float64
    "keras_layer": 3e-6,  # measured 7.2e-7: primitives and layers against those of Keras
    "cached_step": 1e-5,  # measured 2.1e-6: prefill and steps against the full pass
    "padding": 1e-5,  # measured 2.5e-6: a padded row against the row alone
    "loss": 5e-6,  # measured 7e-7: losses against numpy in float64
    "jit": 5e-6,  # measured 9.5e-7: loss and weights after a step, compiled by XLA or not
    "onnxruntime_bundle": 3e-5,  # measured 5.3e-6: graphs for ONNX Runtime against Keras
    "portable_bundle": 3e-5,  # measured 6e-6: graphs of ONNX' own operators against Keras
    "saved_model": 3e-5,  # measured 5.1e-6: signatures of a SavedModel against Keras
    "accumulation": 1e-6,  # measured 6e-8: weights after accumulated gradients against one batch
    "recipe_accumulation": 5e-6,  # measured 1.2e-7: 6 updates in 2 or 4 parts against whole
    "replica_weights": 3e-5,  # measured 3e-6: weights on 2 replicas or workers against one device
    "replica_loss": 5e-6,  # measured 1.8e-7: losses on 2 replicas or workers against one device
    "batched_score": 2e-5,  # measured 1.6e-6: log-likelihood of a text in a batch against alone
}

BFLOAT16 = {
    "outputs": 0.06,  # measured 0.024: share of the largest output, against float32
}

FLOAT16 = {
    "outputs": 0.02,  # measured 0.0071: share of the largest output, against float32
}

TABLES = {"float32": FLOAT32, "bfloat16": BFLOAT16, "float16": FLOAT16}

MEASURED: dict[tuple[str, str], float] = {}
"""Largest difference of each row that was asked for in this run."""


def close(found: Any, expected: Any, row: str, dtype: str = "float32") -> None:
    """Asserts that `found` has the shape of `expected` and is within the tolerance `row` of it."""
    found, expected = np.asarray(found, "float64"), np.asarray(expected, "float64")
    assert found.shape == expected.shape
    allowed = TABLES[dtype][row]
    gap = float(np.abs(found - expected).max(initial=0.0))
    MEASURED[dtype, row] = max(gap, MEASURED.get((dtype, row), 0.0))
    assert gap <= allowed, f"{dtype} {row}: differs by {gap:.3g}"
