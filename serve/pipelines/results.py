"""What the pipelines answer: frozen dataclasses, each with `to_dict()` for JSON."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Result:
    """Base of all answers."""

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, dicts, texts and numbers."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True)
class Classification(Result):
    """A text's class.

    Attributes:
        label: The best label.
        score: Its probability.
        scores: The probability of each label, highest first; of `top_k` where that was asked for.
        labels: Where several may hold: those whose probability reaches the threshold, best first.
        truncated: The end of the text was not read.
        windows: Pieces that a long text was read in.
    """

    label: str
    score: float
    scores: dict[str, float]
    labels: tuple[str, ...] | None = None
    truncated: bool = False
    windows: int = 1

    def __str__(self) -> str:
        shown = (self.label,) if self.labels is None else self.labels
        return "\t".join(part for label in shown for part in (label, f"{self.scores[label]:.4f}"))


@dataclass(frozen=True)
class TokenLabel:
    """One token (or word) with its label; start and end are characters of the text."""

    token: str
    label: str
    score: float
    start: int
    end: int


@dataclass(frozen=True)
class Span:
    """Neighbouring tokens merged under one label."""

    label: str
    text: str
    score: float
    start: int
    end: int


@dataclass(frozen=True)
class TokenLabels(Result):
    """Labels of a text's tokens.

    Attributes:
        tokens: Pieces or words, as the aggregation has it.
        spans: The entities that they make up; none with aggregation "none".
        truncated: The end of the text was not read.
        windows: Pieces that a long text was read in.
        aggregation: How the labels of pieces were joined.
    """

    tokens: tuple[TokenLabel, ...]
    spans: tuple[Span, ...]
    truncated: bool = False
    windows: int = 1
    aggregation: str = "first"

    def __str__(self) -> str:
        if self.aggregation != "none":
            return " ".join(f"{span.text}/{span.label}" for span in self.spans)
        return " ".join(f"{token.token}/{token.label}" for token in self.tokens)


@dataclass(frozen=True)
class Fill:
    """A token that may stand at a mask, and the text with it in place."""

    token: str
    token_id: int
    score: float
    text: str


@dataclass(frozen=True)
class FilledMasks(Result):
    """The likeliest tokens of every mask of a text, best first."""

    masks: tuple[tuple[Fill, ...], ...]
    truncated: bool = False

    def __str__(self) -> str:
        return " | ".join(
            ", ".join(f"{fill.token} {fill.score:.4f}" for fill in fills) for fills in self.masks
        )


@dataclass(frozen=True)
class Answer(Result):
    """The best span of the context; `no_answer_score` is the probability that it holds none."""

    text: str
    score: float
    start: int
    end: int
    no_answer_score: float
    windows: int = 1  # pieces that a long context was read in

    def __str__(self) -> str:
        return f"{self.text}\t{self.score:.4f}"


@dataclass(frozen=True)
class Features(Result):
    """The hidden state of every token, [tokens, width]."""

    tokens: tuple[str, ...]
    values: np.ndarray
    truncated: bool = False
    windows: int = 1  # pieces that a long text was read in

    def __str__(self) -> str:
        return f"{self.values.shape[0]} x {self.values.shape[1]}"


@dataclass(frozen=True)
class Embedding(Result):
    """A text's vector, [width]."""

    values: np.ndarray
    truncated: bool = False
    windows: int = 1  # pieces that a long text was read in

    def __str__(self) -> str:
        return " ".join(f"{value:.6g}" for value in self.values)


@dataclass(frozen=True)
class Similarity(Result):
    """Cosine of two texts' vectors."""

    score: float
    truncated: bool = False

    def __str__(self) -> str:
        return f"{self.score:.4f}"


@dataclass(frozen=True)
class Generated(Result):
    """A generated text.

    Attributes:
        finish_reason: "eos", "stop" (a stop string) or "length" (max_new_tokens were used up).
        token_ids: New tokens, without eos; on "stop" up to the one that completed the stop string.
    """

    text: str
    finish_reason: str
    token_ids: tuple[int, ...]
    prompt_tokens: int
    truncated: bool = False

    def __str__(self) -> str:
        return self.text
