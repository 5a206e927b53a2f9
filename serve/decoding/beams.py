"""Beam search, with groups that are kept apart (https://arxiv.org/abs/1610.02424) if asked for.

Scores, the moments at which a search ends and the order of its answers are those of Hugging Face's
`generate`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from serve.decoding.constraints import Matcher
from serve.decoding.request import Completion
from serve.decoding.sampling import TokenLogprobs, log_softmax, top, warp
from serve.decoding.search import Move, Search, Task


@dataclass
class _Hypothesis:
    """A sequence of tokens: `score` is the sum of their log-probabilities, once it has ended over
    its length; `tokens` holds the ending token, too.
    """

    tokens: list[int]
    score: float
    matcher: Matcher | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    reason: str | None = None


@dataclass
class _Candidate:
    """A hypothesis and the token that would continue it."""

    parent: int
    token: int
    score: float
    reason: str | None = None


class BeamSearch(Search):
    """Keeps the `num_beams` likeliest sequences, in `num_beam_groups` groups."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        settings = task.settings
        self._random = np.random.default_rng(settings.seed)
        self._groups = [
            _Group(task, settings.num_beams // settings.num_beam_groups, self._random)
            for _ in range(settings.num_beam_groups)
        ]

    def advance(self, logits: np.ndarray, states: np.ndarray | None = None) -> Move | None:
        """Go on with the best continuations of every group."""
        processed = [
            [
                self._processed(logits[row], one)
                for row, one in zip(rows, group.running, strict=True)
            ]
            for group, rows in self._rows(len(logits))
        ]
        chosen: Counter[int] = Counter()
        parents, tokens = [], []
        for (group, rows), scores in zip(self._rows(len(logits)), processed, strict=True):
            if group.ended:
                continue
            picked = group.advance(scores, [logits[row] for row in rows], chosen)
            parents += [rows[parent] for parent, _ in picked]
            tokens += [token for _, token in picked]
            chosen.update(token for _, token in picked)
        self.rows = len(tokens)
        return Move(parents, tokens) if tokens else None

    def completions(self, reason: str = "cancelled") -> list[Completion]:
        """The best `num_return_sequences` hypotheses, best first."""
        settings = self.task.settings
        found = [one for group in self._groups for one in group.best(reason)]
        found.sort(key=lambda one: -one.score)
        return [
            Completion(
                tuple(one.tokens[:-1] if one.reason == "eos" else one.tokens),
                one.reason or reason,
                one.score,
                one.logprobs if settings.logprobs is not None else None,
            )
            for one in found[: settings.num_return_sequences]
        ]

    def _processed(self, logits: np.ndarray, one: _Hypothesis) -> np.ndarray:
        scores = self._scores(log_softmax(logits), one.tokens, one.matcher)
        return warp(scores, self.task.settings) if self.task.settings.do_sample else scores

    def _rows(self, count: int) -> list[tuple[_Group, list[int]]]:
        """The groups under way, with the rows of their hypotheses."""
        rows, at = [], 0
        for group in self._groups:
            if group.ended:
                continue
            size = len(group.running)
            begun = bool(group.running[0].tokens)
            rows.append((group, list(range(at, at + size)) if begun else [0] * size))
            at += size if begun else 0
        return rows


class _Group:
    """One beam search, of `size` beams."""

    def __init__(self, task: Task, size: int, random: np.random.Generator) -> None:
        self.task, self.size = task, size
        self.running = [_Hypothesis([], 0.0, task.matcher())]
        self.ended = False
        self._finished: list[_Hypothesis] = []
        self._random = random
        ends = max(2, 1 + len(task.settings.eos_token_id))
        self._kept = ends * size  # enough that `size` remain where as many end as can

    def advance(
        self, scores: list[np.ndarray], logits: list[np.ndarray], chosen: Counter[int]
    ) -> list[tuple[int, int]]:
        """Go on by one step.

        Args:
            scores: Processed log-probabilities of the next token, a row of each running hypothesis.
            logits: The model's own of the same rows.
            chosen: How often earlier groups chose each token in this step.

        Returns:
            (parent, token) of the hypotheses that run on.
        """
        settings = self.task.settings
        penalty = settings.diversity_penalty
        if penalty and chosen:
            scores = [np.array(row) for row in scores]
            for row in scores:
                for token, count in chosen.items():
                    row[token] -= penalty * count
        candidates = self._candidates(scores)
        for one in candidates:
            one.reason = self._reason(one)
        length = len(self.running[0].tokens) + 1
        for one in candidates[: self.size]:
            if one.reason is not None:
                score = one.score / length**settings.length_penalty
                self._finished.append(self._grown(one, score, logits))
        self._finished.sort(key=lambda one: -one.score)
        del self._finished[self.size :]
        going = [one for one in candidates if one.reason is None][: self.size]
        self.ended = not going or not self._may_improve(going[0].score, length)
        if self.ended:
            return []
        self.running = [self._grown(one, one.score, logits) for one in going]
        return [(one.parent, one.token) for one in going]

    def best(self, reason: str) -> list[_Hypothesis]:
        """Hypotheses that ended; where none has, those under way."""
        if self._finished:
            return self._finished
        penalty = self.task.settings.length_penalty
        return [
            _Hypothesis(
                one.tokens,
                one.score / max(1, len(one.tokens)) ** penalty,
                None,
                one.logprobs,
                "constraint" if self.ended else reason,
            )
            for one in self.running
        ]

    def _candidates(self, scores: list[np.ndarray]) -> list[_Candidate]:
        """The best continuations of all hypotheses, best first; or as many drawn ones."""
        values, places = [], []
        for parent, row in enumerate(scores):
            row = row + np.float32(self.running[parent].score)
            keyed = row
            if self.task.settings.do_sample:  # the top of these is a draw without putting back
                keyed = row + self._random.gumbel(size=row.shape).astype(np.float32)
            for token in top(keyed, min(self._kept, row.size)).tolist():
                if row[token] > -np.inf:
                    values.append(float(keyed[token]))
                    places.append(_Candidate(parent, token, float(row[token])))
        order = np.argsort(-np.array(values), kind="stable")[: self._kept]
        found = [places[at] for at in order.tolist()]
        return sorted(found, key=lambda one: -one.score)

    def _reason(self, one: _Candidate) -> str | None:
        if one.token in self.task.settings.eos_token_id:
            return "eos"
        if self.task.ends is None:
            return self.task.finish([*self.running[one.parent].tokens, one.token], stop=False)
        return self.task.finish([*self.running[one.parent].tokens, one.token])

    def _grown(self, one: _Candidate, score: float, logits: list[np.ndarray]) -> _Hypothesis:
        parent = self.running[one.parent]
        matcher, logprobs = None, parent.logprobs
        if parent.matcher is not None and one.reason is None:
            matcher = parent.matcher.fork()
            matcher.advance(one.token)
        if self.task.settings.logprobs is not None:
            raw = log_softmax(logits[one.parent])
            logprobs = (*logprobs, TokenLogprobs(one.token, float(raw[one.token]), ()))
        return _Hypothesis([*parent.tokens, one.token], score, matcher, logprobs, one.reason)

    def _may_improve(self, best: float, length: int) -> bool:
        """Whether a running hypothesis may become one of the best ended ones."""
        settings = self.task.settings
        if len(self._finished) < self.size:
            return True
        if settings.early_stopping is True:
            return False
        if settings.early_stopping == "never" and settings.length_penalty > 0:
            length = self.task.room
        return best / length**settings.length_penalty > self._finished[-1].score
