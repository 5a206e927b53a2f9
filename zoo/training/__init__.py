"""Training: recipes as data, and one trainer around `model.fit`.

Names are resolved on first use, so that reading a recipe does not import a framework.
"""

import importlib

_HOME = {
    "Recipe": "zoo.training.recipe",
    "load_recipe": "zoo.training.load",
    "recipe_from_mapping": "zoo.training.load",
    "Run": "zoo.training.run",
    "train": "zoo.training.trainer",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
