"""Words that an answer never holds, in whatever tokens it might spell them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from serve.errors import InputError
from serve.text.token_bytes import TokenBytes
from serve.text.tokenizer import TextTokenizer

_KEPT = 32  # lists of words that stay compiled


class BannedWords:
    """Which tokens would complete a word, given the answer so far; holds nothing of a sequence.

    A token completes a word if it holds all of it, or if the answer ends with the beginning of the
    word and the token begins with the rest. Both are compared as bytes in UTF-8, so a word is not
    written in letters, bytes or pieces either, nor as a part of a longer one.

    Args:
        table: The bytes of the tokenizer's tokens.
        words: Texts of at least one character.

    Attributes:
        always: Tokens that hold a word, int64 [any].
    """

    def __init__(self, table: TokenBytes, words: Iterable[str]) -> None:
        self._table = table
        wanted = sorted({word.encode() for word in words})
        holding = [table.holding(word) for word in wanted]
        self.always = _union(holding)
        self._longest = max(map(len, wanted), default=1) - 1
        after: dict[bytes, list[np.ndarray]] = {}
        for word in wanted:
            for split in range(1, len(word)):
                after.setdefault(word[:split], []).append(table.beginning_with(word[split:]))
        self._after = {begun: _union(found) for begun, found in after.items()}

    @classmethod
    def of(cls, tokenizer: TextTokenizer, words: Sequence[str]) -> BannedWords:
        """Words for a tokenizer; the same ones again cost a look-up.

        Raises:
            InputError: What a token of this tokenizer writes depends on its neighbours.
        """
        try:
            table = TokenBytes.of(tokenizer)
        except InputError as error:
            raise InputError(
                f"bad_words cannot be followed through this tokenizer's tokens ({error.message}); "
                "give rows of tokens as bad_words_ids"
            ) from error
        return _compiled(table, tuple(words))

    def completing(self, answer: np.ndarray) -> np.ndarray:
        """Tokens that begin with what a word still lacks, int64 [any], behind an answer [tokens].

        Only the answer counts, not the prompt before it.
        """
        found = []
        tails = {self._tail(answer, whole) for whole in (False, True)}
        for tail in tails:
            for length in range(1, min(len(tail), self._longest) + 1):
                ids = self._after.get(tail[-length:])
                if ids is not None:
                    found.append(ids)
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    def _tail(self, answer: np.ndarray, first: bool) -> bytes:
        """The answer's last bytes, at least as many as the longest beginning of a word.

        Args:
            answer: Token ids.
            first: Let the first token stand for what it adds to an empty text.
        """
        tail = b""
        for at in range(len(answer) - 1, -1, -1):
            if len(tail) >= self._longest:
                break
            table = self._table.first if first and at == 0 else self._table.rest
            token = int(answer[at])
            tail = (table[token] if token < len(table) else b"") + tail
        return tail


@lru_cache(_KEPT)
def _compiled(table: TokenBytes, words: tuple[str, ...]) -> BannedWords:
    return BannedWords(table, words)


def _union(sets: Sequence[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate([np.zeros(0, np.int64), *sets]))
