"""Corpora made from data that other Python packages already carry: nothing is downloaded.

Each source is a module with `build(split, seed=0, **options) -> list of examples`; a recipe names
it as `data: {source: dates, options: {...}}`. Splits never depend on `seed`, so no run sees another
run's test data.
"""

import importlib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Literal

from zoo.data.split import stable_fraction
from zoo.errors import DataError

Split = Literal["train", "validation", "test"]
SPLITS = ("train", "validation", "test")
SOURCES = {
    "dates": "zoo.data.sources.dates",
    "language": "zoo.data.sources.language",
    "pydocs": "zoo.data.sources.pydocs",
}


def split_of(key: str, test_share: float, validation_share: float) -> str:
    """The split that `key` belongs to, for ever: it depends on nothing else."""
    position = stable_fraction(key)
    if position < test_share:
        return "test"
    return "validation" if position < test_share + validation_share else "train"


def check_split(split: str) -> None:
    """Raises DataError unless `split` is one of `SPLITS`."""
    if split not in SPLITS:
        raise DataError(f"split is {split!r}, expected one of {', '.join(SPLITS)}")


def size_of(size: int | Mapping[str, int] | None, split: str, default: Mapping[str, int]) -> int:
    """The number of examples asked for in one split.

    Args:
        size: a number for any split, or some splits' own.
        split: the split.
        default: each split's number where `size` does not say.

    Raises:
        DataError: the number is below one, or a split is not known.
    """
    if isinstance(size, Mapping):
        for name in size:
            check_split(name)
        size = size.get(split)
    size = default[split] if size is None else size
    if not isinstance(size, int) or size < 1:
        raise DataError(f"size is {size!r}, expected a whole number of at least 1")
    return size


def get(name: str) -> Callable[..., list[dict[str, Any]]]:
    """The `build` function of one source.

    Raises:
        DataError: the source is not known.
    """
    if name not in SOURCES:
        near = get_close_matches(str(name), SOURCES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"source is {name!r}, expected one of {sorted(SOURCES)}{hint}")
    return importlib.import_module(SOURCES[name]).build


def build(name: str, split: Split, seed: int = 0, **options: Any) -> list[dict[str, Any]]:
    """Examples of one split of a source.

    Raises:
        DataError: the source, the split or an option is not known.
    """
    try:
        return get(name)(split, seed=seed, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise DataError(f"options of source {name!r} are {options}: {error}") from error
