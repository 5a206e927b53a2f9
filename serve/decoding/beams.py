"""Beam search, with groups that are kept apart (https://arxiv.org/abs/1610.02424) if asked for.

Scores, the moments at which a search ends and the order of its answers are those of Hugging Face's
`generate`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serve.decoding.constraints import Matcher
from serve.decoding.request import Completion
from serve.decoding.sampling import TokenLogprobs, log_softmax, log_softmax_at, top, warp
from serve.decoding.search import Move, Search, Task, refuse_nan, scored

_FEW = 64  # tokens that are ruled out, which the likeliest are looked through for


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

    def advance(
        self, logits: Sequence[np.ndarray], states: np.ndarray | None = None
    ) -> Move | None:
        """Go on with the best continuations of every group."""
        chosen: Counter[int] = Counter()
        parents, tokens = [], []
        for group, rows in self._rows():
            picked = group.advance([logits[row] for row in rows], chosen)
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

    def _rows(self) -> list[tuple[_Group, list[int]]]:
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

    def advance(self, logits: list[np.ndarray], chosen: Counter[int]) -> list[tuple[int, int]]:
        """Go on by one step.

        Args:
            logits: The model's, a row of each running hypothesis.
            chosen: How often earlier groups chose each token in this step.

        Returns:
            (parent, token) of the hypotheses that run on.
        """
        settings = self.task.settings
        candidates = self._candidates(logits, chosen)
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

    def _candidates(self, logits: list[np.ndarray], chosen: Counter[int]) -> list[_Candidate]:
        """The best continuations of all hypotheses, best first; or as many drawn ones."""
        parents, tokens, values, keys = [], [], [], []
        for parent, row in enumerate(logits):
            before = np.float32(self.running[parent].score)
            found, own, ranked = self._best(row, self.running[parent], chosen)
            refuse_nan(own[0] if len(own) else row.max())
            parents.append(np.full(len(found), parent))
            tokens.append(found)
            values.append(before + own)
            keys.append(before + ranked)
        scores = np.concatenate(values)
        order = np.argsort(-np.concatenate(keys), kind="stable")
        order = order[scores[order] > -np.inf][: self._kept]
        order = order[np.argsort(-scores[order], kind="stable")]
        rows = zip(
            np.concatenate(parents)[order].tolist(),
            np.concatenate(tokens)[order].tolist(),
            scores[order].tolist(),
            strict=True,
        )
        return [_Candidate(parent, token, score) for parent, token, score in rows]

    def _best(
        self, logits: np.ndarray, one: _Hypothesis, chosen: Counter[int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The tokens that may come to be chosen behind a hypothesis.

        Returns:
            Tokens, their processed log-probabilities, and what they are ranked by.
        """
        settings = self.task.settings
        count = min(self._kept, logits.size)
        penalty = settings.diversity_penalty if chosen else 0.0
        if not (one.matcher or settings.do_sample or penalty):
            banned = self.task.processors.banned(one.tokens)
            if banned is not None and len(banned) <= _FEW:  # no need of a whole row
                likeliest = top(logits, min(count + len(banned), logits.size))
                kept = [token for token in likeliest.tolist() if token not in banned]
                tokens = np.array(kept[:count], np.int64)
                values = log_softmax_at(logits, tokens)
                return tokens, values, values
        scores = scored(self.task, log_softmax(logits), one.tokens, one.matcher, own=True)
        if settings.do_sample:
            scores = warp(scores, settings)
        if penalty:
            scores = np.array(scores)
            for token, times in chosen.items():
                scores[token] -= penalty * times
        keys = scores
        if settings.do_sample:  # the top of these is a draw without putting back
            keys = scores + self._random.gumbel(size=scores.shape).astype(np.float32)
        tokens = top(keys, count)
        return tokens, scores[tokens], keys[tokens]

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
            [value] = log_softmax_at(logits[one.parent], np.array([one.token]))
            logprobs = (*logprobs, TokenLogprobs(one.token, float(value), ()))
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
