"""Recipes from files: found by path or name, changed by overrides, checked whole."""

import dataclasses
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zoo.backbones.config import ARCHITECTURES, fact_names
from zoo.config import from_mapping, nearest, to_mapping
from zoo.errors import ConfigError
from zoo.training.recipe import ModelRecipe, Recipe
from zoo.training.yaml_text import dump, parse

__all__ = [
    "apply_override",
    "available_recipes",
    "dump_recipe",
    "find_recipe",
    "load_recipe",
    "recipe_from_mapping",
]

_ANY_VOCABULARY = 2**31 - 1


def recipe_folders() -> list[Path]:
    """Returns the folders in which recipes are looked up by name: ./configs, then the package's."""
    package = Path(__file__).resolve().parent.parent
    folders = [Path("configs"), package / "configs", package.parent / "configs"]
    found: dict[Path, Path] = {}
    for folder in folders:
        if folder.is_dir():
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def available_recipes() -> dict[str, Path]:
    """Returns the recipes that can be named, each with its file."""
    found: dict[str, Path] = {}
    for folder in recipe_folders():
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def find_recipe(name: str | Path) -> Path:
    """Returns the file of a recipe that is given by path or by name.

    Raises:
        ConfigError: There is no such file and no such name; says which are near.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = available_recipes()
    if str(name).removesuffix(".yaml") in known:
        return known[str(name).removesuffix(".yaml")]
    raise ConfigError(f"No recipe {str(name)!r}, neither a file nor a name; {nearest(name, known)}")


def load_recipe(name: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Reads a recipe from YAML.

    Args:
        name: Path of the file, or the name of one in ./configs or in the package.
        overrides: "dotted.path=value" each, the value in YAML.

    Raises:
        ConfigError: Names every unknown key and unusable value.
    """
    path = find_recipe(name)
    try:
        mapping = parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read the recipe {path}: {error}.") from None
    for override in overrides:
        mapping = apply_override(mapping, override)
    return recipe_from_mapping(mapping, str(path))


def recipe_from_mapping(mapping: Any, where: str = "recipe") -> Recipe:
    """Builds a recipe and checks the model's facts against the config of its architecture."""
    recipe = from_mapping(Recipe, mapping, where)
    facts = {"vocab_size": _ANY_VOCABULARY, **recipe.model.facts}
    from_mapping(ARCHITECTURES[recipe.model.architecture], facts, f"{where}: model")
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """Writes a recipe as YAML, every field stated."""
    return dump(to_mapping(recipe))


def apply_override(mapping: Any, override: str) -> dict[str, Any]:
    """Returns a copy of a recipe's mapping with one value set.

    Args:
        mapping: As YAML gives it.
        override: "training.epochs=3": a dotted path, and a value in YAML (`null` unsets).

    Raises:
        ConfigError: The form is wrong, or no recipe has that path; names the nearest.
    """
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {override!r}: expected a dotted path and a value, such as a.b=3.")
    if not isinstance(mapping, dict):
        raise ConfigError(f"--set {override!r}: the recipe is not a mapping of settings.")
    _check_path(keys, mapping, override)
    changed = target = dict(mapping)
    for key in keys[:-1]:
        inner = target.get(key)
        target[key] = dict(inner) if isinstance(inner, dict) else {}
        target = target[key]
    target[keys[-1]] = parse(text, f"--set {override!r}")
    return changed


def _check_path(keys: list[str], mapping: dict[str, Any], override: str) -> None:
    """Follows `keys` through the recipe's dataclasses."""
    owner: type = Recipe
    for position, key in enumerate(keys):
        known = [field.name for field in dataclasses.fields(owner)]
        if owner is ModelRecipe:
            known = ["architecture", "head"]
            model = mapping.get("model")
            architecture = model.get("architecture") if isinstance(model, dict) else None
            known += fact_names(architecture) if architecture in ARCHITECTURES else [key]
        if key not in known:
            here = ".".join(keys[: position + 1])
            raise ConfigError(f"--set {override!r}: no setting {here!r}; {nearest(key, known)}")
        annotation = typing.get_type_hints(owner).get(key)
        inner = [cls for cls in _parts(annotation) if dataclasses.is_dataclass(cls)]
        if inner:
            owner = inner[0]
        elif position + 1 < len(keys):
            if dict in (typing.get_origin(cls) for cls in _parts(annotation)):
                return
            here = ".".join(keys[: position + 1])
            raise ConfigError(f"--set {override!r}: {here!r} is a value and has no settings in it.")


def _parts(annotation: Any) -> list[Any]:
    return [annotation, *typing.get_args(annotation)]
