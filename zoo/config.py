"""Frozen dataclasses from mappings and back: every problem of a mapping is named in one error."""

import dataclasses
import difflib
import functools
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from zoo.errors import ConfigError

__all__ = ["CONFIG", "from_mapping", "frozen", "nearest", "to_mapping"]

T = TypeVar("T")

CONFIG = ConfigDict(extra="forbid")
"""Pydantic's settings for a config: `@dataclass(frozen=True, kw_only=True, config=CONFIG)`."""

_UNKNOWN = {"unexpected_keyword_argument", "extra_forbidden", "invalid_key"}


def from_mapping(cls: type[T], mapping: Mapping[str, Any], where: str = "recipe") -> T:
    """Builds the dataclass `cls` from a mapping as YAML or JSON gives it.

    Args:
        cls: A pydantic dataclass (its fields may be dataclasses, lists, unions, literals).
        mapping: Field names to values; nested dataclasses as nested mappings.
        where: What the mapping is, for messages: "recipe", a file's name, ...

    Returns:
        An instance of `cls`.

    Raises:
        ConfigError: One line for each unknown key (with the nearest known ones), missing key and
            value that cannot be used (with its path, the value and what was expected).
    """
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{where}: got {_show(mapping)}, expected a mapping of settings.")
    try:
        return _adapter(cls).validate_python(dict(mapping))
    except ValidationError as error:
        raise _as_config_error(cls, error, where) from None


def frozen(cls: type[T]) -> type[T]:
    """Makes `cls` a frozen, validated, keyword-only dataclass whose constructor raises
    `ConfigError`.
    """
    made = pydantic_dataclass(frozen=True, kw_only=True, config=CONFIG)(cls)
    construct = made.__init__

    @functools.wraps(construct)
    def __init__(self: Any, *args: Any, **values: Any) -> None:  # noqa: N807
        try:
            construct(self, *args, **values)
        except ValidationError as error:
            raise _as_config_error(made, error, cls.__name__) from None

    made.__init__ = __init__
    return made


def _as_config_error(cls: type, error: ValidationError, where: str) -> ConfigError:
    lines = list(dict.fromkeys(_line(cls, problem) for problem in error.errors()))
    if len(lines) == 1:
        return ConfigError(f"{where}: {lines[0]}")
    return ConfigError(
        f"{where}: {len(lines)} problems\n" + "\n".join(f"  {line}" for line in lines)
    )


def to_mapping(config: Any) -> dict[str, Any]:
    """Returns a dataclass as plain dicts, lists, strings and numbers (`from_mapping` reversed)."""
    return _adapter(type(config)).dump_python(config, mode="json")


def nearest(name: object, known: typing.Iterable[str]) -> str:
    """Returns "did you mean 'x' or 'y'?", or the list of what is known where nothing is near."""
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(repr(match) for match in close)}?"
    return f"known: {', '.join(known)}." if known else "nothing is known here."


@functools.cache
def _adapter(cls: type) -> TypeAdapter:
    return TypeAdapter(cls)


def _line(cls: type, problem: dict[str, Any]) -> str:
    """Writes one problem as pydantic reports it on one line."""
    location = [part for part in problem["loc"] if not _is_branch(part)]
    if problem["type"] in _UNKNOWN:
        location = [part for part in problem["loc"][:-1] if not _is_branch(part)]
        location.append(problem["loc"][-1])
    path = ".".join(str(part) for part in location)
    if problem["type"] in _UNKNOWN:
        known = {
            field.name
            for owner in _dataclasses_at(cls, problem["loc"][:-1])
            for field in dataclasses.fields(owner)
        }
        return f"unknown key {path!r}; {nearest(location[-1], known)}"
    if problem["type"] in {"missing", "missing_argument", "missing_keyword_only_argument"}:
        return f"{path!r} is required and missing."
    message = problem["msg"].removeprefix("Value error, ").rstrip(".")
    if problem["type"] == "value_error":
        return f"{path}: {message}." if path else f"{message}."
    message = message.replace("Input should be ", "expected ")
    return f"{path}: got {_show(problem['input'])}, {message[0].lower()}{message[1:]}."


def _is_branch(part: object) -> bool:
    """Whether a part of a location names a branch of a union, not a key or an index."""
    return isinstance(part, str) and (
        part in {"int", "float", "str", "bool", "none", "list", "dict", "tuple"}
        or "[" in part
        or part[:1].isupper()
    )


def _dataclasses_at(cls: type, location: typing.Sequence[object]) -> list[type]:
    """Returns the dataclasses that a value at `location` inside `cls` may be."""
    owners = [cls]
    for part in location:
        if isinstance(part, int) or _is_branch(part):
            continue
        owners = [
            inner
            for owner in owners
            for inner in _dataclasses_in(typing.get_type_hints(owner).get(str(part)))
        ]
    return owners


def _dataclasses_in(annotation: Any) -> list[type]:
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return [annotation]
    return [cls for inner in typing.get_args(annotation) for cls in _dataclasses_in(inner)]


def _show(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
