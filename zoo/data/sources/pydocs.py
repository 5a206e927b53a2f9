"""The documentation of the Python language, out of the interpreter itself (`pydoc_data.topics`).

Topics repeat each other: `compound` holds all of `if`, `while`, `try`. Topics that share a
paragraph therefore go into one group, a group lies in one split (by stable hashes), and inside a
group a paragraph is kept once. So no paragraph of the test is in the training text. The text is
that of the running Python version.
"""

import random
import re
from collections import defaultdict
from functools import lru_cache
from typing import Any

from zoo.data.sources import SPLITS, Split, check_split
from zoo.data.split import stable_fraction
from zoo.errors import DataError

SHARES = {"test": 0.10, "validation": 0.08}
_SHORT = 40  # characters: headings and one-line examples may recur anywhere


def _paragraphs(text: str) -> list[str]:
    return [
        paragraph for paragraph in re.split(r"\n[ \t]*\n", text.strip("\n")) if paragraph.strip()
    ]


def _key(paragraph: str) -> str:
    """The form in which two paragraphs count as the same: without layout."""
    return " ".join(paragraph.split())


def _groups(topics: dict[str, str]) -> list[list[str]]:
    """Topics that share a paragraph, directly or through others; in each the longest first."""
    group = {name: name for name in topics}

    def root(name: str) -> str:
        while group[name] != name:
            name = group[name]
        return name

    first_with: dict[str, str] = {}
    for name in sorted(topics):
        for paragraph in _paragraphs(topics[name]):
            if len(key := _key(paragraph)) >= _SHORT:
                a, b = sorted((root(first_with.setdefault(key, name)), root(name)))
                group[b] = a
    members = defaultdict(list)
    for name in topics:
        members[root(name)].append(name)
    return [
        sorted(names, key=lambda name: (-len(topics[name]), name))
        for _, names in sorted(members.items())
    ]


def _without_repeats(names: list[str], topics: dict[str, str]) -> list[dict[str, Any]]:
    seen: set[str] = set()
    documents = []
    for name in names:
        kept = []
        for paragraph in _paragraphs(topics[name]):
            key = _key(paragraph)
            if len(key) < _SHORT or key not in seen:
                kept.append(paragraph)
            seen.add(key)
        if any(len(_key(paragraph)) >= _SHORT for paragraph in kept):
            documents.append({"text": "\n\n".join(kept) + "\n", "topic": name})
    return documents


@lru_cache(maxsize=1)
def _documents() -> dict[str, list[dict[str, Any]]]:
    from pydoc_data.topics import topics

    groups = [_without_repeats(names, topics) for names in _groups(topics)]
    groups.sort(
        key=lambda group: stable_fraction(f"pydocs {min(document['topic'] for document in group)}")
    )
    sizes = [sum(len(document["text"]) for document in group) for group in groups]
    documents: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    # In the order of their hashes, each group goes where there is still room for it: few and uneven
    # as they are, a hash alone could leave a split empty.
    room = {split: share * sum(sizes) for split, share in SHARES.items()}
    for group, size in zip(groups, sizes, strict=True):
        split = next((name for name, free in room.items() if size <= free), "train")
        if split != "train":
            room[split] -= size
        documents[split] += group
    return documents


def build(split: Split, seed: int = 0, max_chars: int | None = None) -> list[dict[str, Any]]:
    """Examples `{"text", "topic"}`, one a topic or a run of its paragraphs.

    Args:
        split: `train`, `validation` or `test`; they share no paragraph of 40 characters or more.
        seed: the order of the examples, and nothing else.
        max_chars: a topic is cut between paragraphs into texts of at most so many characters (one
            paragraph may
            be longer).

    Raises:
        DataError: an unknown split, or max_chars below one.
    """
    check_split(split)
    if max_chars is not None and max_chars < 1:
        raise DataError(f"max_chars is {max_chars}, expected at least 1 or none")
    examples = []
    for document in _documents()[split]:
        pieces = [""]
        for paragraph in _paragraphs(document["text"]):
            if max_chars and pieces[-1] and len(pieces[-1]) + len(paragraph) + 2 > max_chars:
                pieces.append("")
            pieces[-1] += paragraph + "\n\n"
        examples += [{**document, "text": piece.rstrip("\n") + "\n"} for piece in pieces]
    random.Random(f"pydocs-{split}-{seed}").shuffle(examples)
    return examples
