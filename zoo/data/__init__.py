"""From files to batches: reading, cleaning, splitting, and `tf.data` batches for each task."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.data.alignment import Window, align_tags, answer_of, question_windows
    from zoo.data.batching import batches, pack
    from zoo.data.clean import Cleaner
    from zoo.data.readers import read, read_parallel
    from zoo.data.split import split_examples, stable_fraction, stable_split

_HOMES = {
    "Cleaner": "clean",
    "Window": "alignment",
    "align_tags": "alignment",
    "answer_of": "alignment",
    "batches": "batching",
    "pack": "batching",
    "question_windows": "alignment",
    "read": "readers",
    "read_parallel": "readers",
    "split_examples": "split",
    "stable_fraction": "split",
    "stable_split": "split",
}
__all__ = [
    "Cleaner",
    "Window",
    "align_tags",
    "answer_of",
    "batches",
    "pack",
    "question_windows",
    "read",
    "read_parallel",
    "split_examples",
    "stable_fraction",
    "stable_split",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo.data' has no attribute {name!r}")
    return getattr(import_module(f"zoo.data.{_HOMES[name]}"), name)
