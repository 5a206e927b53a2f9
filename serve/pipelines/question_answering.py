"""Where in a context the answer to a question stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Encoding

from serve.bundle.manifest import Manifest
from serve.errors import InputError
from serve.pipelines.encoder import EncoderPipeline, Truncation
from serve.pipelines.results import Answer


class QuestionAnswerer(EncoderPipeline):
    """The span of a context that answers a question (task question-answering).

    An input is `{"question": ..., "context": ...}` or a tuple of both. A context longer than the
    model reads is read in overlapping windows, so nothing is cut off. Settings:
    `max_answer_length` in tokens (30).
    """

    pairs = "must"
    pair_names = ("question", "context")
    outputs = ("start_logits", "end_logits")
    by_token = frozenset(outputs)
    cut = "only_second"

    def stride(self, manifest: Manifest) -> int:
        """Windows share a quarter of the model's length: room for an answer at the seam."""
        return manifest.tokenizer.max_length // 4 if manifest.tokenizer else 0

    def _answer(
        self, items: Sequence[Any], truncation: Truncation, **settings: Any
    ) -> list[Answer]:
        longest = settings.pop("max_answer_length", 30)
        if settings:
            raise InputError(f"{self.task} has no setting {sorted(settings)[0]!r}")
        if not isinstance(longest, int) or longest < 1:
            raise InputError(f"max_answer_length={longest!r}: expected a whole number from 1")
        windows: list[Encoding] = []
        owners: list[int] = []
        for row, encoding in enumerate(self._encode(items, truncation)):
            for window in (encoding, *encoding.overflowing):
                windows.append(window)
                owners.append(row)
        outputs = self._run(windows)
        contexts = [str(self._parts(item)[1]) for item in items]
        return [
            self._best(
                context,
                [windows[at] for at, owner in enumerate(owners) if owner == row],
                [outputs[at] for at, owner in enumerate(owners) if owner == row],
                longest,
            )
            for row, context in enumerate(contexts)
        ]

    def _best(
        self,
        context: str,
        windows: Sequence[Encoding],
        outputs: Sequence[dict[str, np.ndarray]],
        longest: int,
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
