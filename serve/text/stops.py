"""Notices stop strings in a growing row of tokens, across the borders of tokens."""

from __future__ import annotations

from collections.abc import Sequence

from serve.text.token_bytes import byte_tokens
from serve.text.tokenizer import TextTokenizer

_REPLACEMENT = "\ufffd"  # what half a character decodes to
_MARGIN = 4  # tokens that may end a character begun before the window, and one that loses its space


class StopMatcher:
    """Tells whether the newest token of an answer completes a stop string.

    Only the end of the answer is decoded, as much as the longest stop string may take.

    Args:
        tokenizer: The model's.
        stop: Texts that end an answer.
    """

    def __init__(self, tokenizer: TextTokenizer, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._longest = max((len(text.encode()) for text in self._stop), default=0)
        self._bytes = byte_tokens(tokenizer) if self._stop else frozenset()

    def ends(self, token_ids: Sequence[int]) -> bool:
        """Whether a stop string ends within the text of the newest token.

        Args:
            token_ids: The answer so far.
        """
        if not self._stop or not token_ids:
            return False
        tail = self._tail(token_ids)
        text = self._tokenizer.decode(tail)
        # What was half a character before the newest token, that token may have completed.
        before = len(self._tokenizer.decode(tail[:-1]).rstrip(_REPLACEMENT))
        return any(text.find(stop, max(0, before - len(stop) + 1)) >= 0 for stop in self._stop)

    def _tail(self, token_ids: Sequence[int]) -> Sequence[int]:
        """The last tokens, whose text is longer than any stop string."""
        count = self._longest + _MARGIN
        while True:
            start = max(0, len(token_ids) - count)
            while start and token_ids[start] in self._bytes:
                start -= 1  # a run of byte tokens is decoded as a whole, or not at all
            tail = token_ids[start:]
            if start == 0 or len(self._tokenizer.decode(tail).encode()) >= self._longest + _MARGIN:
                return tail
            count *= 2
