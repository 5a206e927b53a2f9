"""Text to ids and back: tokenizers that `tokenizer.json` alone reproduces anywhere."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.text.tokenizer import Encoding, Tokenizer
    from zoo.text.words import join_words

_HOMES = {
    "Encoding": "zoo.text.tokenizer",
    "Tokenizer": "zoo.text.tokenizer",
    "join_words": "zoo.text.words",
}
__all__ = ["Encoding", "Tokenizer", "join_words"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zoo.text' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
