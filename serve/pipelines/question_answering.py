"""Where in a context the answer to a question stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serve.pipelines.base import check_count
from serve.pipelines.encoder import EncoderPipeline, EncoderSettings, Outputs
from serve.pipelines.results import Answer
from serve.text.windows import Piece


@dataclass(frozen=True)
class AnswerSettings(EncoderSettings):
    """Settings of question-answering.

    Attributes:
        max_answer_length: Most tokens of an answer.
    """

    max_answer_length: int = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("max_answer_length", self.max_answer_length)


class QuestionAnswerer(EncoderPipeline):
    """The span of a context that answers a question (task question-answering).

    An input is `{"question": ..., "context": ...}` or a tuple of both. A context longer than the
    model reads is read in overlapping windows, so nothing is cut off.
    """

    settings_type = AnswerSettings
    pairs = "must"
    pair_names = ("question", "context")
    outputs = ("start_logits", "end_logits")
    by_token = frozenset(outputs)
    windowed = "second"

    def _answer(self, items: Sequence[Any], settings: AnswerSettings) -> list[Answer]:
        readings = self._read(items, settings)
        outputs = self._run_all(readings)
        contexts = [str(self._parts(item)[1]) for item in items]
        return [
            self._best(context, reading.pieces, found, settings.max_answer_length)
            for context, reading, found in zip(contexts, readings, outputs, strict=True)
        ]

    def _best(
        self, context: str, windows: Sequence[Piece], outputs: Sequence[Outputs], longest: int
    ) -> Answer:
        """The best span over all windows of a context."""
        best = Answer("", 0.0, 0, 0, 1.0, len(windows))
        no_answer = 1.0
        for window, logits in zip(windows, outputs, strict=True):
            inside = np.array([part == 1 for part in window.sequence_ids])
            first, last, score, nothing = best_span(
                logits["start_logits"], logits["end_logits"], inside, longest
            )
            no_answer = min(no_answer, nothing)  # an answer in one window is enough
            if score > best.score:
                start, end = window.offsets[first][0], window.offsets[last][1]
                best = Answer(context[start:end], score, start, end, 0.0, len(windows))
        return Answer(best.text, best.score, best.start, best.end, no_answer, len(windows))


def best_span(
    start: np.ndarray, end: np.ndarray, inside: np.ndarray, longest: int
) -> tuple[int, int, float, float]:
    """The likeliest span that lies `inside` and has at most `longest` tokens.

    Args:
        start: Logits of the first token, [tokens].
        end: Logits of the last token, [tokens].
        inside: Tokens of the context; the first token of all stands for "no answer".
        longest: Tokens of a span at most.

    Returns:
        First token, last token, probability, and the probability of "no answer".
    """
    allowed = inside.copy()
    allowed[0] = True
    probabilities = []
    for logits in (start, end):
        masked = np.where(allowed, logits.astype(np.float64), -np.inf)
        weights = np.exp(masked - masked.max())
        probabilities.append(weights / weights.sum())
    starts, ends = (np.where(inside, part, 0.0) for part in probabilities)
    products = np.outer(starts, ends)
    products = np.tril(np.triu(products), longest - 1)
    first, last = divmod(int(products.argmax()), len(start))
    nothing = 0.0 if inside[0] else float(probabilities[0][0] * probabilities[1][0])
    return first, last, float(products[first, last]), nothing
