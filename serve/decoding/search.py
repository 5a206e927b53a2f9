"""How a request chooses among tokens: what it does with the logits of its rows.

A `Search` is shown the logits of its rows and answers with the rows of the next step: for each the
row that it goes on from, and the token that it gets. `serve.decoding.engine`, which runs the model,
knows nothing else of it. Greedy choice and drawing are here, beams in `serve.decoding.beams`,
contrastive search in `serve.decoding.contrastive`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from serve.decoding.constraints import Grammar, Matcher
from serve.decoding.processing import Processors
from serve.decoding.request import Completion
from serve.decoding.sampling import TokenLogprobs, draw, token_logprobs
from serve.decoding.settings import GenerationSettings
from serve.errors import ServeError

Ends = Callable[[Sequence[int]], bool]
"""Whether the newest of the generated tokens completes a stop string."""


@dataclass(frozen=True)
class Move:
    """The rows of the next step.

    Attributes:
        parents: For each row, the row of the last step that it continues.
        tokens: For each row, the token that it gets.
    """

    parents: list[int]
    tokens: list[int]


@dataclass(frozen=True)
class Task:
    """What a search knows of its request.

    Attributes:
        settings: The request's.
        processors: What changes scores before the choice.
        room: New tokens at most.
        ends: Notices stop strings; None without any.
        grammar: What the answer has to follow.
    """

    settings: GenerationSettings
    processors: Processors
    room: int
    ends: Ends | None = None
    grammar: Grammar | None = None

    def matcher(self) -> Matcher | None:
        """The state of a sequence in the grammar, where there is one."""
        return None if self.grammar is None else self.grammar.start()

    def finish(self, tokens: Sequence[int], stop: bool = True) -> str | None:
        """Why a sequence ends behind its newest token, which is no end token; None: it goes on."""
        if stop and self.ends is not None and self.ends(tokens):
            return "stop"
        return "length" if len(tokens) >= self.room else None


class Search(ABC):
    """The state of one request.

    Attributes:
        rows: Rows of the last step.
        fresh: (sequence, token) pairs that the last call decided for good, to be streamed.
    """

    needs_hidden = False

    def __init__(self, task: Task) -> None:
        self.task = task
        self.rows = 1
        self.fresh: list[tuple[int, int]] = []

    @abstractmethod
    def advance(
        self, logits: Sequence[np.ndarray], states: np.ndarray | None = None
    ) -> Move | None:
        """Go on by one step.

        Args:
            logits: [vocabulary] of each row; at first one row, the prompt's.
            states: Hidden states where `needs_hidden`, [rows, width]; none at first.

        Returns:
            The next step; None where the request has ended.
        """

    def see(self, states: np.ndarray) -> None:
        """Take hidden states of the prompt, [time, width], before the first step."""
        raise AssertionError(f"{type(self).__name__} compares no hidden states")

    @abstractmethod
    def completions(self, reason: str = "cancelled") -> list[Completion]:
        """The answers, best first; `reason` is given to those that have not ended."""


def scored(
    task: Task,
    scores: np.ndarray,
    tokens: Sequence[int],
    matcher: Matcher | None,
    own: bool = False,
) -> np.ndarray:
    """Scores of the next token, [vocabulary], behind what a request's rules and grammar change.

    Args:
        task: The request's.
        scores: The model's, float32.
        tokens: The sequence so far.
        matcher: Where the sequence is in its grammar.
        own: The scores are the caller's own, and may be changed in place.
    """
    if task.processors.idle and matcher is None:
        return scores
    scores = task.processors(scores if own else np.array(scores, np.float32), tokens)
    if matcher is not None:
        matcher.mask(scores)
    return scores


def refuse_nan(value: float) -> None:
    """Raise where a score is no number: the model's arithmetic has overflowed."""
    if np.isnan(value):
        raise ServeError(
            "the model's scores are not numbers (NaN): its weights are broken, or its precision "
            "is too narrow for them; export it in float32 or bfloat16"
        )


@dataclass
class _Drawn:
    """One sequence of a `Sampling`."""

    random: np.random.Generator
    matcher: Matcher | None
    tokens: array[int]
    logprobs: list[TokenLogprobs]
    reason: str | None = None


class Sampling(Search):
    """The likeliest token each time, or one drawn; several sequences share a prompt.

    Each sequence draws from a generator of its own, seeded by the request alone.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        settings = task.settings
        self._sequences = [
            _Drawn(_random(settings.seed, at), task.matcher(), array("q"), [])
            for at in range(settings.num_return_sequences)
        ]
        self._live = list(range(len(self._sequences)))

    def advance(
        self, logits: Sequence[np.ndarray], states: np.ndarray | None = None
    ) -> Move | None:
        """Choose a token for every sequence that is under way."""
        self.fresh = []
        parents, tokens, live = [], [], []
        for line, at in enumerate(self._live):
            row = line if len(logits) > 1 else 0  # the prompt's row begins all sequences
            token = self._choose(self._sequences[at], logits[row])
            if token is None:
                continue
            self.fresh.append((at, token))
            if self._sequences[at].reason is None:
                parents.append(row)
                tokens.append(token)
                live.append(at)
        self._live, self.rows = live, len(live)
        return Move(parents, tokens) if live else None

    def completions(self, reason: str = "cancelled") -> list[Completion]:
        """The sequences in the order of their seeds."""
        asked = self.task.settings.logprobs is not None
        return [
            Completion(
                tuple(one.tokens),
                one.reason or reason,
                None,
                tuple(one.logprobs) if asked else None,
            )
            for one in self._sequences
        ]

    def _choose(self, one: _Drawn, logits: np.ndarray) -> int | None:
        """The next token; None where it ends the sequence and is no part of it."""
        settings = self.task.settings
        scores = scored(self.task, logits, one.tokens, one.matcher)
        token = int(scores.argmax())
        if not scores[token] > -np.inf:
            refuse_nan(scores[token])
            one.reason = "constraint"
            return None
        if settings.do_sample:
            token = draw(scores, settings, one.random.random())
        if settings.logprobs is not None:
            one.logprobs.append(token_logprobs(logits, token, settings.logprobs))
        if token in settings.eos_token_id:
            one.reason = "eos"
            return None
        if one.matcher is not None:
            one.matcher.advance(token)
        one.tokens.append(token)
        one.reason = self.task.finish(one.tokens)
        return token


def _random(seed: int | None, sequence: int) -> np.random.Generator:
    if seed is None:
        return np.random.default_rng()
    return np.random.default_rng(seed if sequence == 0 else (seed, sequence))
