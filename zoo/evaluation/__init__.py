"""Evaluation: metrics of predictions, and the predictions of runs and baselines.

`evaluate` needs no framework; what predicts with Keras is loaded on first use.
"""

import importlib

from zoo.evaluation.evaluate import METRICS, evaluate

_HOME = dict.fromkeys(("evaluate_run", "predict_examples", "predict_run"), "prediction")
__all__ = ["METRICS", "evaluate", *_HOME]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
