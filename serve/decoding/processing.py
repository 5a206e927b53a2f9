"""What settings do to a row of scores before a token is chosen: penalties, and tokens that are
ruled out or forced.

Scores are logits, or in a beam search log-probabilities. The order of the rules is that of Hugging
Face's `generate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from serve.decoding.banned_words import BannedWords
from serve.decoding.sampling import log_softmax
from serve.decoding.settings import GenerationSettings
from serve.errors import InputError

Rule = Callable[[np.ndarray, np.ndarray, int], None]
"""Changes scores [vocabulary] in place, given the tokens so far [prompt + answer] and how many of
them are the answer's."""

_NEVER = np.float32(-np.inf)


@dataclass(frozen=True)
class Ban:
    """A rule that does nothing but rule tokens out: their ids, given tokens and new ones."""

    ids: Callable[[np.ndarray, int], np.ndarray]

    def __call__(self, scores: np.ndarray, tokens: np.ndarray, new: int) -> None:
        """Rule the tokens out."""
        ids = self.ids(tokens, new)
        scores[ids[ids < len(scores)]] = _NEVER


@dataclass(frozen=True)
class Forced:
    """The answer's token number `at`, from 0."""

    token: int
    at: int

    def __call__(self, scores: np.ndarray, tokens: np.ndarray, new: int) -> None:
        """Leave that token alone, where it is its turn."""
        if new == self.at:
            scores.fill(_NEVER)
            scores[self.token] = 0


_NONE = np.zeros(0, np.int64)


class Processors:
    """The rules of one request. They hold nothing of a sequence: beams share them.

    Args:
        settings: What the request asks.
        prompt: What the decoder began with; for an encoder-decoder the start token and what is
            forced behind it.
        vocabulary: Length of a row of scores.
        encoder_ids: What the encoder read; None for a decoder, whose prompt is its input.
        max_new_tokens: Most tokens of the answer.
        words: Those of `bad_words`, where there are any.

    Attributes:
        idle: There is nothing to do: scores pass unchanged.

    Raises:
        InputError: A token id of the settings lies outside the vocabulary, or `logprobs` are more
            than its tokens.
    """

    def __init__(
        self,
        settings: GenerationSettings,
        prompt: Sequence[int],
        vocabulary: int,
        encoder_ids: Sequence[int] | None,
        max_new_tokens: int,
        words: BannedWords | None = None,
    ) -> None:
        _check(settings, vocabulary)
        self._prompt = np.asarray(prompt, np.int64)
        source = self._prompt if encoder_ids is None else np.asarray(encoder_ids, np.int64)
        start = len(self._prompt)
        ends = _array(token for token in settings.eos_token_id if token < vocabulary)
        rules = [
            _bias(settings),
            _repetition(settings.repetition_penalty),
            _presence(settings.presence_penalty, settings.frequency_penalty, start),
            _no_repeat(settings.no_repeat_ngram_size),
            _no_repeat(settings.encoder_no_repeat_ngram_size, source),
            *_bad_words(settings.bad_words_ids, settings.eos_token_id),
            _always(words.always) if words is not None else None,
            _completing(words),
            _least(
                0 if settings.min_new_tokens else settings.min_length, settings.min_new_tokens, ends
            ),
            _always(ends if settings.ignore_eos else _array(())),
            _forced(settings.forced_bos_token_id if start == 1 else None, 0),
            _forced(settings.forced_eos_token_id, max_new_tokens - 1),
            _always(_array(settings.suppress_tokens)),
            _first(settings, start),
            _renormalized(settings.renormalize_logits),
        ]
        self._rules: list[Rule] = [rule for rule in rules if rule is not None]
        self.idle = not self._rules

    def banned(self, generated: Sequence[int]) -> set[int] | None:
        """Ids of the tokens that are ruled out next, where that is all that the rules do; None
        where they do more, and a whole row of scores has to be gone through.
        """
        new = len(generated)
        rules = [rule for rule in self._rules if not (isinstance(rule, Forced) and rule.at != new)]
        if not all(isinstance(rule, Ban) for rule in rules):
            return None
        if not rules:
            return set()
        tokens = self._tokens(generated)
        found: set[int] = set()
        for rule in rules:
            if isinstance(rule, Ban):
                found.update(rule.ids(tokens, new).tolist())
        return found

    def __call__(self, scores: np.ndarray, generated: Sequence[int]) -> np.ndarray:
        """Apply the rules.

        Args:
            scores: float32 [vocabulary]; may be changed in place.
            generated: The answer so far; an int64 array, or `array.array("q")`, is not copied.

        Returns:
            float32 [vocabulary].
        """
        if self.idle:
            return scores
        tokens = self._tokens(generated)
        for rule in self._rules:
            rule(scores, tokens, len(generated))
        return scores

    def _tokens(self, generated: Sequence[int]) -> np.ndarray:
        return np.concatenate([self._prompt, np.asarray(generated, np.int64)])


def _array(ids: Iterable[int]) -> np.ndarray:
    return np.fromiter(ids, np.int64)


def _check(settings: GenerationSettings, vocabulary: int) -> None:
    """End tokens may lie outside: they never come then."""
    forced = (settings.forced_bos_token_id, settings.forced_eos_token_id)
    given = {
        "logit_bias": settings.logit_bias,
        "bad_words_ids": [token for row in settings.bad_words_ids for token in row],
        "suppress_tokens": settings.suppress_tokens,
        "begin_suppress_tokens": settings.begin_suppress_tokens,
        "forced_bos_token_id": [forced[0]] if forced[0] is not None else [],
        "forced_eos_token_id": [forced[1]] if forced[1] is not None else [],
    }
    for name, ids in given.items():
        for token in ids:
            if token >= vocabulary:
                raise InputError(
                    f"{name}: token {token} is outside the vocabulary, "
                    f"expected ids from 0 to {vocabulary - 1}"
                )
    if settings.logprobs is not None and settings.logprobs > vocabulary:
        raise InputError(
            f"logprobs={settings.logprobs}: the model has {vocabulary} tokens, ask for fewer"
        )


def _bias(settings: GenerationSettings) -> Rule | None:
    if not settings.logit_bias:
        return None
    ids = _array(settings.logit_bias)
    values = np.array(list(settings.logit_bias.values()), np.float32)

    def rule(scores: np.ndarray, tokens: np.ndarray, new: int) -> None:
        scores[ids] += values

    return rule


def _repetition(penalty: float) -> Rule | None:
    if penalty == 1:
        return None
    factor = np.float32(penalty)

    def rule(scores: np.ndarray, tokens: np.ndarray, new: int) -> None:
        held = tokens[tokens < len(scores)]
        values = scores[held]  # a token that is held twice gets the same value twice
        scores[held] = np.where(values < 0, values * factor, values / factor)

    return rule


def _presence(presence: float, frequency: float, start: int) -> Rule | None:
    if presence == 0 and frequency == 0:
        return None

    def rule(scores: np.ndarray, tokens: np.ndarray, new: int) -> None:
        held, counts = np.unique(tokens[start:], return_counts=True)
        scores[held] -= (float(presence) + float(frequency) * counts).astype(np.float32)

    return rule


def _no_repeat(size: int, source: np.ndarray | None = None) -> Rule | None:
    """No n-gram of `source`, by default of the tokens so far."""
    if size == 0:
        return None

    def ids(tokens: np.ndarray, new: int) -> np.ndarray:
        if len(tokens) < size - 1:
            return _NONE
        suffix = tokens[len(tokens) + 1 - size :]
        return followers(tokens if source is None else source, suffix)

    return Ban(ids)


def followers(tokens: np.ndarray, suffix: np.ndarray) -> np.ndarray:
    """What stands in `tokens` behind each place where `suffix` does: [n], [size] -> [places].

    Places are looked for by the suffix' last token, and only those are compared further.
    """
    size = len(suffix)
    if size == 0:
        return tokens
    places = np.flatnonzero(tokens[size - 1 : -1] == suffix[-1])
    for offset in range(size - 1):
        places = places[tokens[places + offset] == suffix[offset]]
    return tokens[places + size]


def _bad_words(rows: Sequence[Sequence[int]], ends: Sequence[int]) -> list[Rule | None]:
    """Rules for single tokens, and for the last tokens of longer rows by their length.

    An end token alone is no bad word: it is the minimum lengths that rule it out.
    """
    by_length: dict[int, list[Sequence[int]]] = {}
    for row in rows:
        if not (len(row) == 1 and row[0] in ends):
            by_length.setdefault(len(row), []).append(row)
    return [
        _always(_array(row[0] for row in group)) if length == 1 else _last_of(np.array(group))
        for length, group in sorted(by_length.items())
    ]


def _completing(words: BannedWords | None) -> Rule | None:
    """Tokens that complete a word that the answer has begun."""
    if words is None:
        return None
    return Ban(lambda tokens, new: words.completing(tokens[len(tokens) - new :]))


def _last_of(rows: np.ndarray) -> Rule:
    """The last token of a row [rows, length] may not follow the others."""
    beginnings, last = rows[:, :-1].astype(np.int64), rows[:, -1].astype(np.int64)
    length = beginnings.shape[1]

    def ids(tokens: np.ndarray, new: int) -> np.ndarray:
        if length > len(tokens):
            return _NONE
        found: np.ndarray = last[(beginnings == tokens[-length:]).all(1)]
        return found

    return Ban(ids)


def _least(length: int, new_tokens: int, ends: np.ndarray) -> Rule | None:
    if (length == 0 and new_tokens == 0) or not len(ends):
        return None

    return Ban(lambda tokens, new: ends if len(tokens) < length or new < new_tokens else _NONE)


def _always(ids: np.ndarray) -> Rule | None:
    """Tokens that are never chosen."""
    return Ban(lambda tokens, new: ids) if len(ids) else None


def _forced(token: int | None, at: int) -> Rule | None:
    return None if token is None else Forced(token, at)


def _first(settings: GenerationSettings, start: int) -> Rule | None:
    """Tokens that do not come first: behind the one that is forced, where one is."""
    if not settings.begin_suppress_tokens:
        return None
    ids = _array(settings.begin_suppress_tokens)
    at = int(start == 1 and settings.forced_bos_token_id is not None)

    return Ban(lambda tokens, new: ids if new == at else _NONE)


def _renormalized(wanted: bool) -> Rule | None:
    if not wanted:
        return None

    def rule(scores: np.ndarray, tokens: np.ndarray, new: int) -> None:
        scores[:] = log_softmax(scores)

    return rule
