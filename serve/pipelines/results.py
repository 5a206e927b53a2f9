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
class AnswerSpan:
    """A span of the context that may be the answer; start and end are characters of it."""

    text: str
    score: float
    start: int
    end: int


@dataclass(frozen=True)
class Answer(Result):
    """The answer to a question.

    Attributes:
        text: The best span of the context; empty where there is no answer.
        score: Its probability, among all spans of the context and "no answer".
        start: Its first character in the context.
        end: One past its last character.
        no_answer_score: The probability that the context holds no answer.
        no_answer_difference: Logit of "no answer" less that of the best span; None where the model
            has no such logit, or the context no span.
        spans: The `top_k` best spans, whether or not there is an answer.
        truncated: The end of the context was not read.
        windows: Pieces that a long context was read in.
    """

    text: str
    score: float
    start: int
    end: int
    no_answer_score: float
    no_answer_difference: float | None
    spans: tuple[AnswerSpan, ...] = ()
    truncated: bool = False
    windows: int = 1

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
class TokenProbability:
    """A generated token with its log-probability, and the likeliest tokens at its place as
    (token, id, log-probability), as the model gave them before penalties and temperature.
    """

    token: str
    token_id: int
    logprob: float
    top: tuple[tuple[str, int, float], ...] = ()


@dataclass(frozen=True)
class GeneratedSequence:
    """One of several generated texts; fields as in `Generated`."""

    text: str
    finish_reason: str
    token_ids: tuple[int, ...]
    score: float | None = None
    logprobs: tuple[TokenProbability, ...] | None = None


@dataclass(frozen=True)
class Generated(Result):
    """A generated text, the best one where there are several.

    Attributes:
        finish_reason: "eos", "stop" (a stop string), "length" (max_new_tokens were used up) or
            "constraint" (nothing may follow).
        token_ids: New tokens, without eos; on "stop" up to the one that completed the stop string.
        prompt_tokens: Tokens that were read.
        truncated: The text was longer than the model reads, and cut.
        score: Of a beam: its log-probability over its length to the power of the length penalty.
        logprobs: Of the tokens, the ending one included, where asked for.
        sequences: All sequences, best first, where several were asked for.
        cached_tokens: Tokens of the prompt that were known from earlier prompts.
    """

    text: str
    finish_reason: str
    token_ids: tuple[int, ...]
    prompt_tokens: int
    truncated: bool = False
    score: float | None = None
    logprobs: tuple[TokenProbability, ...] | None = None
    sequences: tuple[GeneratedSequence, ...] = ()
    cached_tokens: int = 0

    def __str__(self) -> str:
        return self.text
