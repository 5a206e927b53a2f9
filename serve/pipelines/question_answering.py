"""Where in a context the answer to a question stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serve.errors import InputError
from serve.pipelines.base import check_count
from serve.pipelines.encoder import EncoderPipeline, EncoderSettings, Outputs
from serve.pipelines.results import Answer, AnswerSpan
from serve.text.windows import Piece, Reading, Window


@dataclass(frozen=True)
class AnswerSettings(EncoderSettings):
    """Settings of question-answering.

    Attributes:
        max_answer_length: Most tokens of an answer.
        top_k: How many answers to give, in `Answer.spans`.
        handle_impossible: Answer with an empty text where the context seems to hold no answer: for
            models that were trained on questions without one, as SQuAD 2.0 has.
        no_answer_threshold: How much larger than that of the best span the logit of "no answer"
            must be for that (SQuAD's null score difference, chosen on held-out data).
    """

    max_answer_length: int = 30
    top_k: int = 1
    handle_impossible: bool = False
    no_answer_threshold: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("max_answer_length", self.max_answer_length)
        check_count("top_k", self.top_k)
        threshold = self.no_answer_threshold
        if isinstance(threshold, bool) or not isinstance(threshold, int | float):
            raise InputError(f"no_answer_threshold={threshold!r}: expected a number")
        if threshold != 0.0 and not self.handle_impossible:
            raise InputError("no_answer_threshold is of handle_impossible=True")


@dataclass(frozen=True)
class Candidates:
    """The spans that may be the answer, by their tokens in the whole context.

    Attributes:
        spans: Logits, [tokens, lengths]: row i, column n is the span of n + 1 tokens from token i;
            -inf where no window has it whole.
        no_answer: Logit of there being none.
        offsets: Characters of the context's tokens.
    """

    spans: np.ndarray
    no_answer: float
    offsets: list[tuple[int, int]]


class QuestionAnswerer(EncoderPipeline):
    """The span of a context that answers a question (task question-answering).

    An input is `{"question": ..., "context": ...}` or a tuple of both. A context longer than the
    model reads is read in overlapping windows, so nothing is cut off.

    A span's logit is that of its first token as a beginning plus that of its last as an end. Those
    of different windows are compared as they are, and one softmax over the distinct spans of all
    windows and "no answer" makes probabilities of them (shared normalisation,
    https://arxiv.org/abs/1710.10723): a window of little interest cannot win by having nothing
    better. A span that several windows have counts once, with its largest logit. "No answer" has
    the smallest of the windows' logits at the first token (https://arxiv.org/abs/1810.04805): it
    holds only where it holds for every window.
    """

    settings_type = AnswerSettings
    pairs = "must"
    pair_names = ("question", "context")
    outputs = ("start_logits", "end_logits")
    by_token = frozenset(outputs)
    windowed = "second"

    def _answer(self, items: Sequence[Any], settings: AnswerSettings) -> list[Answer]:
        readings = self._read(items, settings)
        contexts = [str(self._parts(item)[1]) for item in items]
        return [
            best_answer(
                context, candidates(reading, outputs, settings.max_answer_length), reading, settings
            )
            for context, reading, outputs in zip(
                contexts, readings, self._run_all(readings), strict=True
            )
        ]


def candidates(reading: Reading, outputs: Sequence[Outputs], longest: int) -> Candidates:
    """The spans of all windows, and "no answer".

    Args:
        reading: The windows of a question with its context.
        outputs: start_logits and end_logits of each, [tokens].
        longest: Tokens of a span at most.
    """
    places = [_context(piece) for piece in reading.pieces]
    begins = [piece.start if isinstance(piece, Window) else 0 for piece in reading.pieces]
    tokens = max(begin + end - first for begin, (first, end) in zip(begins, places, strict=True))
    spans = np.full((tokens, min(longest, tokens)), -np.inf)
    offsets = [(0, 0)] * tokens
    nothing = []
    for piece, found, begin, (first, end) in zip(
        reading.pieces, outputs, begins, places, strict=True
    ):
        starts, ends = (found[name].astype(np.float64) for name in QuestionAnswerer.outputs)
        if piece.sequence_ids[0] is None:
            nothing.append(float(starts[0] + ends[0]))
        offsets[begin : begin + end - first] = piece.offsets[first:end]
        for more in range(min(spans.shape[1], end - first)):
            logits = starts[first : end - more] + ends[first + more : end]
            column = spans[begin : begin + len(logits), more]
            np.maximum(column, logits, out=column)
    return Candidates(spans, min(nothing, default=-np.inf), offsets)


def best_answer(
    context: str, found: Candidates, reading: Reading, settings: AnswerSettings
) -> Answer:
    """The likeliest span, or that there is none."""
    facts: dict[str, Any] = {"windows": len(reading.pieces), "truncated": reading.truncated}
    if not found.spans.size:  # an empty context
        return Answer("", 0.0, 0, 0, 1.0, None, (), **facts)
    logits = found.spans.ravel()
    highest = max(logits.max(), found.no_answer)
    weights, nothing = np.exp(logits - highest), np.exp(found.no_answer - highest)
    total = weights.sum() + nothing
    order = np.lexsort((np.arange(logits.size), -logits))[: settings.top_k]
    spans = []
    for at in order[np.isfinite(logits[order])].tolist():
        first, more = divmod(at, found.spans.shape[1])
        start, end = found.offsets[first][0], found.offsets[first + more][1]
        spans.append(AnswerSpan(context[start:end], float(weights[at] / total), start, end))
    best, share = spans[0], float(nothing / total)
    apart = found.no_answer - float(logits[order[0]])
    difference = apart if np.isfinite(apart) else None
    if settings.handle_impossible and apart > settings.no_answer_threshold:
        return Answer("", share, 0, 0, share, difference, tuple(spans), **facts)
    return Answer(
        best.text, best.score, best.start, best.end, share, difference, tuple(spans), **facts
    )


def _context(piece: Piece) -> tuple[int, int]:
    """First and one past the last token of the context; equal where it is empty."""
    inside = [at for at, part in enumerate(piece.sequence_ids) if part == 1]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)
