"""Tokens that are guessed ahead, for the model to check in one run.

A guess costs little where it is wrong and saves a step where it is right; what is answered does
not depend on it. Guesses come from the text itself (prompt look-up) or from a smaller model
(speculative decoding, https://arxiv.org/abs/2211.17192, with exact agreement in place of rejection
sampling).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from serve.decoding.settings import GenerationSettings

if TYPE_CHECKING:
    from serve.decoding.cache import Cache
    from serve.decoding.generator import Generator

_LONGEST, _SHORTEST = 4, 2  # tokens that have to agree for what followed them to be guessed


class Drafts(ABC):
    """Guesses for one request, of at most `most` tokens; fewer after wrong ones."""

    def __init__(self, most: int) -> None:
        self._most = self._count = most

    @abstractmethod
    def add(self, tokens: Sequence[int]) -> None:
        """Take tokens that were decided."""

    @abstractmethod
    def guess(self, count: int) -> list[int]:
        """Up to `count` tokens that may follow what was decided."""

    def propose(self, most: int) -> list[int]:
        """A guess of as many tokens as guesses were right lately, and at most `most`."""
        count = min(self._count, most)
        return self.guess(count) if count > 0 else []

    def judge(self, proposed: int, right: int) -> None:
        """Learn how many tokens of the last proposal were right."""
        if right == proposed:
            self._count = min(self._most, max(self._count, proposed) * 2)
        elif 2 * right < proposed:
            self._count = max(1, right + 1)


class LookUp(Drafts):
    """What followed the newest tokens where they stood before.

    Args:
        text: The prompt, and for an encoder-decoder the encoder's input before it.
        most: Most tokens of a guess.
    """

    def __init__(self, text: Sequence[int], most: int) -> None:
        super().__init__(most)
        self._text: list[int] = []
        self._places: dict[tuple[int, ...], int] = {}  # tokens -> where those behind them begin
        self._read = 0
        self.add(text)

    def add(self, tokens: Sequence[int]) -> None:
        """Take tokens that were decided."""
        self._text.extend(tokens)

    def guess(self, count: int) -> list[int]:
        """Up to `count` tokens that followed the longest agreement, the latest one first."""
        text = self._text
        for end in range(max(self._read, _SHORTEST), len(text)):  # all but the newest
            for size in range(_SHORTEST, min(_LONGEST, end) + 1):
                self._places[tuple(text[end - size : end])] = end
        self._read = len(text)
        for size in range(min(_LONGEST, len(text)), _SHORTEST - 1, -1):
            place = self._places.get(tuple(text[-size:]))
            if place is not None:
                found = text[place : place + count]
                while len(found) < count:  # the agreement overlaps itself: it goes on periodically
                    found.append(found[len(found) - (len(text) - place)])
                return found
        return []


class DraftModel(Drafts):
    """What a smaller model would write.

    Args:
        draft: The smaller model.
        prompt: What the decoder begins with.
        encoder_ids: What the encoder reads, where there is one.
        most: Most tokens of a guess.
    """

    def __init__(
        self,
        draft: Generator,
        prompt: Sequence[int],
        encoder_ids: Sequence[int] | None,
        most: int,
    ) -> None:
        super().__init__(most)
        self._draft = draft
        self._input = encoder_ids
        self._text = list(prompt)
        self._cache: Cache | None = None  # once there is something to guess

    def add(self, tokens: Sequence[int]) -> None:
        """Take tokens that were decided."""
        self._text.extend(tokens)

    def guess(self, count: int) -> list[int]:
        """The draft model's likeliest continuation."""
        cache, text = self._cache, self._text
        if cache is None:
            cache = self._cache = self._draft.new_cache(1, self._draft.max_length)
        count = min(count, cache.capacity - len(text) + 1)
        if count < 1:
            return []
        if not cache.rows:
            logits = cache.add([text], self._draft.encode([self._input or text]))[0]
        else:
            held = cache.alike(0, np.asarray(text[:-1]))
            cache.trim(0, held)
            logits = cache.extend(0, text[held:], steps=True)
        found = [int(logits.argmax())]
        while len(found) < count:
            found.append(int(cache.step(np.array(found[-1:]))[0].argmax()))
        return found


def drafts(
    settings: GenerationSettings,
    prompt: Sequence[int],
    encoder_ids: Sequence[int] | None,
    draft: Generator | None,
) -> Drafts | None:
    """Guesses for a request that asks for them, or has a draft model."""
    if settings.prompt_lookup:
        return LookUp([*(encoder_ids or ()), *prompt], settings.prompt_lookup)
    if draft is not None:
        return DraftModel(draft, prompt, encoder_ids, settings.draft_tokens)
    return None
