"""Cuts texts into passages that a model can read whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from serve.errors import InputError
from serve.text.tokenizer import TextTokenizer

Offsets = Sequence[tuple[int, int]]

_PIECE = 200_000  # characters that are tokenized at a time
_ENDS = ".!?…。！？；"
_CLOSING = "\"'”’»)]}」』）"
PARAGRAPH, SENTENCE, WORD, NONE = 3, 2, 1, 0
"""What a border separates."""


class PassageCutter:
    """Cuts a text into passages of about equal length that overlap.

    A passage ends where a paragraph, else a sentence or line, else a word ends, as long as that
    leaves it at least half as long as it may be; the next begins likewise within the overlap.

    Args:
        tokenizer: Without truncation.
        tokens: Most tokens of a passage, special tokens not counted.
        overlap: Most tokens that a passage shares with the one before it.
    """

    def __init__(self, tokenizer: TextTokenizer, tokens: int, overlap: int) -> None:
        if tokens < 1 or not 0 <= overlap < tokens:
            raise InputError(
                f"passages of {tokens} tokens that share {overlap}: expected at least 1 token, "
                "and fewer shared than that"
            )
        self.tokenizer = tokenizer
        self.tokens = tokens
        self.overlap = overlap

    def __call__(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield the first character and the end of every passage."""
        at = 0
        while at < len(text):
            piece = text[at : at + _PIECE]
            found = list(cut(piece, self._offsets(piece), self.tokens, self.overlap))
            whole = at + _PIECE >= len(text)
            if not whole and len(found) > 1:
                *found, (again, _) = found  # the last is cut off: read it again in the next piece
            else:
                again = len(piece)
            for start, end in found:
                yield at + start, at + end
            at += again

    def _offsets(self, text: str) -> Offsets:
        [encoding] = self.tokenizer.encode([text])
        special = encoding.special_tokens_mask
        return [span for span, extra in zip(encoding.offsets, special, strict=True) if not extra]


def cut(text: str, offsets: Offsets, tokens: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the passages of a text, without the white space around them.

    Args:
        text: The text.
        offsets: First character and end of every token.
        tokens: Most tokens of a passage.
        overlap: Most tokens shared by neighbours.
    """
    first = 0
    while first < len(offsets):
        end = first + tokens
        if end < len(offsets):
            least = first + max(overlap + 1, tokens // 2)
            end = max(range(least, end + 1), key=lambda at: (border(text, offsets, at), at))
        else:
            end = len(offsets)
        start, stop = _stripped(text, offsets[first][0], offsets[end - 1][1])
        if start < stop:
            yield start, stop
        if end == len(offsets):
            return
        first = _beginning(text, offsets, end, overlap)


def _beginning(text: str, offsets: Offsets, end: int, overlap: int) -> int:
    """Where the passage behind one that ended at token `end` begins.

    At the best border that leaves at least half of the overlap, else at the first one of words.
    """
    wide = range(end - overlap, end - overlap // 2 + 1)
    best = max(wide, key=lambda at: (border(text, offsets, at), -at))
    if border(text, offsets, best) == NONE:
        words = (at for at in range(wide.stop, end + 1) if border(text, offsets, at) > NONE)
        return next(words, best)
    return best


def border(text: str, offsets: Offsets, at: int) -> int:
    """What lies between the tokens `at - 1` and `at`."""
    before, after = offsets[at - 1][1], offsets[at][0]
    if after < before:  # two tokens of one character
        return NONE
    while before > 0 and text[before - 1].isspace():  # some tokenizers count it to a token
        before -= 1
    while after < len(text) and text[after].isspace():
        after += 1
    gap = text[before:after]
    if gap.count("\n") > 1:
        return PARAGRAPH
    last = text[:before][-4:].rstrip(_CLOSING)[-1:]
    wide = last > "\u2fff"  # marks of scripts that put no space behind them
    if "\n" in gap or (last and last in _ENDS and (gap or wide)):
        return SENTENCE
    return WORD if gap else NONE


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end
