"""Text that grows by tokens: never half a character, and nothing behind a stop string."""

from __future__ import annotations

from collections.abc import Sequence

from serve.text.token_bytes import byte_tokens
from serve.text.tokenizer import TextTokenizer

_REPLACEMENT = "\ufffd"  # what half a character decodes to


class Detokenizer:
    """Decodes a growing row of ids; never emits half a character.

    Only a short window is decoded again per token: it starts at the last point where the text was
    whole, one emission back, since a decoder may treat the first token of a text specially. A run
    of tokens that stand for single bytes waits for its end: decoders make characters of the whole
    run, or of none of it.

    Args:
        tokenizer: The model's.
        after: Tokens that the text goes on from. Decoders drop the space before the first word of a
            text, not within it. Without any, it is a text of its own.
    """

    def __init__(self, tokenizer: TextTokenizer, after: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._ids = list(after)
        self._start = 0  # of the window
        self._read = len(self._ids)  # ids whose text was emitted
        self._known = tokenizer.decode(self._ids) if self._ids else ""  # text of ids[start:read]
        self._bytes = byte_tokens(tokenizer)
        self._run: str | None = None  # the window's text with the run of bytes under way

    def push(self, token: int) -> str:
        """Add a token; returns the text that became certain, often one word, possibly none."""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids[self._start :])
        if token in self._bytes or text == self._run:  # what adds no text does not end a run
            self._run = text
            return ""
        self._run = None
        if len(text) <= len(self._known) or text.endswith(_REPLACEMENT):
            return ""
        return self._emit(text)

    def finish(self) -> str:
        """What was held back: a character that never became whole shows as U+FFFD."""
        return self._emit(self._tokenizer.decode(self._ids[self._start :]))

    def _emit(self, text: str) -> str:
        piece = text[len(self._known) :]
        self._start, self._read = self._read, len(self._ids)
        self._known = self._tokenizer.decode(self._ids[self._start : self._read])
        return piece


class StopCutter:
    """Passes text through until a stop string; holds back what may be the beginning of one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def push(self, piece: str) -> str:
        """Add text; returns what is certain to lie before any stop string."""
        if self.stopped or not self._stop:
            return "" if self.stopped else piece
        text = self._held + piece
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max(
            size
            for stop in self._stop
            for size in range(min(len(stop), len(text) + 1))
            if size == 0 or text.endswith(stop[:size])
        )
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """The text held back, now that nothing follows."""
        held, self._held = self._held, ""
        return held


class TextAssembler:
    """Makes text of the tokens of one row, and notices stop strings.

    Args:
        tokenizer: The model's.
        stop: Texts that end the row; they are not part of what is made.
        after: Tokens that the row goes on from, see `Detokenizer`.

    Attributes:
        stopped: A stop string was met; the row needs no more tokens.
    """

    def __init__(
        self, tokenizer: TextTokenizer, stop: Sequence[str], after: Sequence[int] = ()
    ) -> None:
        self._detokenizer = Detokenizer(tokenizer, after)
        self._cutter = StopCutter(stop)

    @property
    def stopped(self) -> bool:
        """Whether a stop string was met."""
        return self._cutter.stopped

    def push(self, token: int) -> str:
        """Add a token; returns the text that may be shown."""
        return self._cutter.push(self._detokenizer.push(token))

    def finish(self) -> str:
        """What was held back, once the row has ended."""
        return self._cutter.push(self._detokenizer.finish()) + self._cutter.finish()
