"""From the labels of a text's tokens to words and entities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serve.pipelines.results import Span, TokenLabel

AGGREGATIONS = ("none", "simple", "first", "average", "max")
OUTSIDE = "O"


@dataclass(frozen=True)
class ScoredToken:
    """A token of a text: its characters, its word, and the probability of each label."""

    start: int
    end: int
    word: int | None
    scores: np.ndarray  # [labels]


def is_bio(labels: Sequence[str]) -> bool:
    """Whether all labels with a prefix begin or continue: words are labelled, not characters."""
    prefixes = {label[0] for label in labels if label[1:2] in ("-", "_")}
    return bool(prefixes) and prefixes <= {"B", "I"}


def words_of(
    text: str, tokens: Sequence[ScoredToken], given: bool = False
) -> list[list[ScoredToken]]:
    """Tokens by the word they belong to.

    A word ends where the tokenizer says so, and at white space: some tokenizers take a whole text
    for one word.

    Args:
        text: The text.
        tokens: Its tokens in order.
        given: The words were given, so that the tokenizer's word is the only one.
    """
    groups: list[list[ScoredToken]] = []
    word, start = None, -1
    for token in tokens:
        around = text[max(0, token.start - 1) : token.start + 1]
        goes_on = token.start == start  # behind a mark of space, or part of a character
        spaced = not given and not goes_on and any(map(str.isspace, around))
        if groups and not spaced and token.word is not None and token.word == word:
            groups[-1].append(token)
        else:
            groups.append([token])
        word, start = token.word, token.start
    return groups


def labelled(
    text: str, group: Sequence[ScoredToken], labels: Sequence[str], kind: str
) -> TokenLabel:
    """One label for the tokens of a word; `kind` is "first", "average" or "max"."""
    if kind == "average":
        scores = np.mean([token.scores for token in group], axis=0)
    elif kind == "max":
        scores = max(group, key=lambda token: float(token.scores.max())).scores
    else:
        scores = group[0].scores
    best = int(scores.argmax())
    start, end = group[0].start, group[-1].end
    return TokenLabel(text[start:end], labels[best], float(scores[best]), start, end)


def merge(text: str, tokens: Sequence[TokenLabel]) -> list[Span]:
    """Merge neighbours of one label into entities, each as sure as its tokens are on average.

    Schemes: BIO, BIOES and BMES, BILOU (B begins, I and M continue, E and L end, S and U stand
    alone). A label without such a prefix continues the entity before it if that has the same label;
    "O" is none. A continuation without a beginning begins one: models err, and an entity is worth
    more.
    """
    spans: list[list[TokenLabel]] = []
    names: list[str] = []
    open_name: str | None = None
    for token in tokens:
        prefix, name = _prefix(token.label)
        if token.label == OUTSIDE:
            open_name = None
            continue
        if open_name == name and prefix not in ("B", "S", "U"):
            spans[-1].append(token)
        else:
            spans.append([token])
            names.append(name)
        open_name = None if prefix in ("E", "L", "S", "U") else name
    return [
        Span(
            name,
            text[span[0].start : span[-1].end],
            sum(token.score for token in span) / len(span),
            span[0].start,
            span[-1].end,
        )
        for name, span in zip(names, spans, strict=True)
    ]


def _prefix(label: str) -> tuple[str, str]:
    if len(label) > 2 and label[1] in "-_" and label[0] in "BIMESLU":
        return label[0], label[2:]
    if label in ("B", "I", "M", "E", "S"):
        return label, "word"  # segmentation: the labels say only where words begin and end
    return "", label
