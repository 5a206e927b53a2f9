"""Contrastive search (https://arxiv.org/abs/2202.06417): likely, and unlike what was written.

Each of the `top_k` likeliest tokens is read by the model in a row of its own; the one is taken
whose probability, less how much its hidden state resembles one before it, is greatest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serve.decoding.request import Completion
from serve.decoding.sampling import TokenLogprobs, log_softmax, token_logprobs, top
from serve.decoding.search import Move, Search, Task, refuse_nan, scored


class ContrastiveSearch(Search):
    """One sequence; needs a graph that returns its hidden states."""

    needs_hidden = True

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._matcher = task.matcher()
        self._tokens: list[int] = []
        self._logprobs: list[TokenLogprobs] = []
        self._reason: str | None = None
        self._context: list[np.ndarray] = []  # hidden states of length 1, [time, width] each
        self._candidates = np.zeros(0, np.int64)
        self._likely = np.zeros(0, np.float32)
        self._logits = np.zeros(0, np.float32)  # what the candidates were chosen by

    def advance(
        self, logits: Sequence[np.ndarray], states: np.ndarray | None = None
    ) -> Move | None:
        """Choose among the candidates, and find those of the next step."""
        self.fresh = []
        if states is None:
            return self._look(logits[0], 0)
        directions = _directions(states)
        alpha = np.float32(self.task.settings.penalty_alpha or 0.0)
        alike = np.max([(part @ directions.T).max(0) for part in self._context], axis=0)
        best = int(np.argmax((1 - alpha) * self._likely - alpha * alike))
        self._context.append(directions[best : best + 1])
        token = int(self._candidates[best])
        if self.task.settings.logprobs is not None:
            count = self.task.settings.logprobs
            self._logprobs.append(token_logprobs(self._logits, token, count))
        if token in self.task.settings.eos_token_id:
            self._reason = "eos"
            return None
        self._tokens.append(token)
        self.fresh = [(0, token)]
        if self._matcher is not None:
            self._matcher.advance(token)
        self._reason = self.task.finish(self._tokens)
        return self._look(logits[best], best) if self._reason is None else None

    def see(self, states: np.ndarray) -> None:
        """Take hidden states of the prompt, [time, width], before the first step."""
        self._context.append(_directions(states))

    def completions(self, reason: str = "cancelled") -> list[Completion]:
        """The sequence."""
        asked = self.task.settings.logprobs is not None
        logprobs = tuple(self._logprobs) if asked else None
        return [Completion(tuple(self._tokens), self._reason or reason, None, logprobs)]

    def _look(self, logits: np.ndarray, parent: int) -> Move | None:
        """The likeliest tokens behind a row, each in a row of its own."""
        scores = scored(self.task, logits, self._tokens, self._matcher)
        refuse_nan(scores.max())
        found = top(scores, min(self.task.settings.top_k or 1, scores.size))
        self._candidates = found[scores[found] > -np.inf]
        if not len(self._candidates):
            self._reason = "constraint"
            return None
        self._likely = np.exp(log_softmax(scores)[self._candidates])
        self._logits = np.array(logits)
        self.rows = len(self._candidates)
        return Move([parent] * self.rows, self._candidates.tolist())


def _directions(states: np.ndarray) -> np.ndarray:
    """States [time, width] at length 1, so that their products are cosines."""
    return states / np.maximum(np.linalg.norm(states, axis=-1, keepdims=True), 1e-12)
