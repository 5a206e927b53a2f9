"""Splits that do not depend on the order of the examples, nor on what else is in the file."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from zoo.errors import ConfigError

Key = str | Callable[[Mapping[str, Any]], Any] | None


def stable_fraction(key: Any, seed: int = 0) -> float:
    """A number in [0, 1) that depends on the key and the seed alone (BLAKE2b)."""
    text = key if isinstance(key, str) else json.dumps(key, ensure_ascii=False, sort_keys=True)
    digest = hashlib.blake2b(f"{seed}\0{text}".encode("utf-8", "surrogatepass"), digest_size=8)
    return (int.from_bytes(digest.digest(), "big") >> 11) / 2**53  # exact in a double


def stable_split(key: Any, fraction: float, seed: int = 0) -> bool:
    """True when the example of this key belongs to the held-out part.

    A larger fraction with the same seed holds out the same examples and more.

    Args:
        key: what names the example: a string, or anything JSON can write.
        fraction: the share to hold out, from 0 to 1.
        seed: another seed gives another split.
    """
    if not 0 <= fraction <= 1:
        raise ConfigError(f"fraction={fraction}; expected a number from 0 to 1")
    return stable_fraction(key, seed) < fraction


def split_examples(
    examples: Iterable[Mapping[str, Any]], fraction: float, seed: int = 0, key: Key = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Part examples into (training, validation).

    Args:
        examples: the examples; those with equal keys stay together.
        fraction: the share to hold out, from 0 to 1.
        seed: another seed gives another split.
        key: a field of the examples, or a function of one; None takes the whole example.
    """
    parts: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for example in examples:
        if key is None:
            name: Any = example
        else:
            name = key(example) if callable(key) else example[key]
        parts[stable_split(name, fraction, seed)].append(dict(example))
    return parts
