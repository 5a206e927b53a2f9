"""Keras text models: architectures, tasks, text, data, training, evaluation. Knows nothing of ONNX.

Names are loaded when they are first used, so that `import zoo` is quick and does not start
TensorFlow.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "ConfigError": "zoo.errors",
    "DataError": "zoo.errors",
    "DecoderConfig": "zoo.backbones.config",
    "EncoderConfig": "zoo.backbones.config",
    "EncoderDecoderConfig": "zoo.backbones.config",
    "Recipe": "zoo.training.recipe",
    "Run": "zoo.training.run",
    "RunError": "zoo.errors",
    "TASKS": "zoo.tasks",
    "TaskModel": "zoo.tasks",
    "Tokenizer": "zoo.text",
    "ZooError": "zoo.errors",
    "from_keras_nlp": "zoo.checkpoints",
    "from_pretrained": "zoo.checkpoints",
    "train": "zoo.training.trainer",
}
_ROOMS = ("checkpoints", "data", "evaluation", "families", "text", "training")

__all__ = ["__version__", *sorted(_HOMES), *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"zoo.{name}")
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
