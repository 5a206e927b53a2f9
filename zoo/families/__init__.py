"""Families: one module per `model_type` of Hugging Face folders, found by its file's name.

A module holds one `FAMILY`: how its `config.json` becomes our facts, its weight table, its heads
and its presets. A variant takes another family's and states the difference.
"""

import functools
import importlib
import pkgutil

from zoo.checkpoints.family import Family, Form, Preset
from zoo.config import nearest
from zoo.errors import ConfigError

__all__ = ["Family", "Form", "Preset", "family", "model_types"]


@functools.cache
def _modules() -> dict[str, str]:
    """model_type -> module; a module's name has underscores where the type has hyphens."""
    names = {}
    for entry in pkgutil.iter_modules(__path__):
        for model_type in (entry.name, entry.name.replace("_", "-")):
            names.setdefault(model_type, entry.name)
    return names


def model_types() -> list[str]:
    """The model types that can be read and written, sorted."""
    modules = sorted(set(_modules().values()))
    return sorted(_load(module).model_type for module in modules)


def _load(module: str) -> Family:
    return importlib.import_module(f"zoo.families.{module}").FAMILY


def family(model_type: str) -> Family:
    """The family of a model type.

    Raises:
        ConfigError: There is none; the message names the nearest.
    """
    found = _modules().get(str(model_type))
    if found is not None and _load(found).model_type == model_type:
        return _load(found)
    raise ConfigError(
        f"model_type {model_type!r} is not known: {nearest(model_type, model_types())}"
    )
