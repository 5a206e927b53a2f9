"""Texts longer than a model reads: overlapping windows, or a cut that says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tokenizers import Encoding

from serve.errors import InputError

Part = Literal["longest", "first", "second"]
"""Which text of a pair is shortened."""

_COLUMNS = (
    "ids",
    "type_ids",
    "tokens",
    "offsets",
    "word_ids",
    "sequence_ids",
    "special_tokens_mask",
)


class Piece(Protocol):
    """What a run of the graph reads: an `Encoding`, or a window of one."""

    def __len__(self) -> int: ...
    @property
    def ids(self) -> list[int]:
        """Token ids."""

    @property
    def type_ids(self) -> list[int]:
        """0 for the first text, 1 for the second, as the model was trained."""

    @property
    def tokens(self) -> list[str]:
        """Tokens as the vocabulary spells them."""

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Characters of each token in its text (in its word, where the text came as words)."""

    @property
    def word_ids(self) -> list[int | None]:
        """Which word of its text a token belongs to; None for special tokens."""

    @property
    def sequence_ids(self) -> list[int | None]:
        """0 for tokens of the first text, 1 for those of the second, None for special tokens."""

    @property
    def special_tokens_mask(self) -> list[int]:
        """1 for tokens that the tokenizer added."""


@dataclass(frozen=True)
class Window:
    """A part of an encoding between the special tokens of the whole; fields as in `Piece`.

    Attributes:
        start: How many tokens of the shortened text lie before the window.
        new_tokens: How many of its tokens no earlier window has.
    """

    ids: list[int]
    type_ids: list[int]
    tokens: list[str]
    offsets: list[tuple[int, int]]
    word_ids: list[int | None]
    sequence_ids: list[int | None]
    special_tokens_mask: list[int]
    start: int = 0
    new_tokens: int = 0

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Reading:
    """How one input is read.

    Attributes:
        pieces: One encoding, or the windows of a long one.
        truncated: The end was left out.
    """

    pieces: Sequence[Piece]
    truncated: bool = False

    @property
    def weights(self) -> list[int]:
        """Tokens that each piece is the first to have: they add up to the tokens of the text."""
        if len(self.pieces) == 1:
            return [1]
        return [piece.new_tokens for piece in self.pieces if isinstance(piece, Window)]


def read_windows(
    encoding: Encoding, max_length: int, stride: int | None = None, part: Part = "longest"
) -> Reading:
    """Split an encoding into windows of at most `max_length` tokens, special tokens included.

    Args:
        encoding: A text or a pair, not truncated.
        max_length: Tokens that the model reads.
        stride: Tokens that neighbouring windows share; by default a quarter of what a window has.
        part: Which text of a pair is split; the other is in every window.

    Raises:
        InputError: The other text leaves no room, or the windows would share all that they have.
    """
    if len(encoding) <= max_length:
        return Reading([encoding])
    first, end = _span(encoding, _chosen(encoding, part))
    room = max_length - (len(encoding) - (end - first))
    if room < 1:
        raise InputError(
            f"the model reads {max_length} tokens, and the shorter text of the pair leaves no room "
            "for the longer one; shorten it, or pass long='cut'"
        )
    shared = room // 4 if stride is None else stride
    if not 0 <= shared < room:
        raise InputError(
            f"stride={stride}: windows of {max_length} tokens have {room} of the long text, "
            f"expected 0 to {room - 1}"
        )
    columns = _columns(encoding)
    pieces = []
    for begin in range(first, end, room - shared):
        stop = min(begin + room, end)
        new = stop - begin if begin == first else stop - begin - shared
        pieces.append(
            _window(columns, [(0, first), (begin, stop), (end, None)], begin - first, new)
        )
        if stop == end:
            break
    return Reading(pieces)


def read_cut(encoding: Encoding, max_length: int, part: Part = "longest") -> Reading:
    """Cut the end of a text; of a pair by default that of the longer one, then both equally.

    Raises:
        InputError: The other text alone is too long.
    """
    over = len(encoding) - max_length
    if over <= 0:
        return Reading([encoding])
    spans = [_span(encoding, sequence) for sequence in range(encoding.n_sequences)]
    sizes = [end - first for first, end in spans]
    if part == "longest" and len(spans) == 2:
        kept = _even(sizes, sum(sizes) - over)
    else:
        kept = list(sizes)
        kept[_chosen(encoding, part)] -= over
    if min(kept) < 0:
        raise InputError(
            f"the model reads {max_length} tokens, and the text that may not be cut has more; "
            "shorten it"
        )
    slices: list[tuple[int, int | None]] = []
    at = 0
    for (first, end), size in sorted(zip(spans, kept, strict=True)):
        if first < end:
            slices += [(at, first), (first, first + size)]
            at = end
    return Reading([_window(_columns(encoding), [*slices, (at, None)])], truncated=True)


def text_places(piece: Piece, sequence: int = 0) -> list[int]:
    """Positions of the tokens of a text in a piece, special tokens left out."""
    marks = zip(piece.sequence_ids, piece.special_tokens_mask, strict=True)
    return [at for at, (part, special) in enumerate(marks) if part == sequence and not special]


def best_places(reading: Reading, sequence: int = 0) -> list[tuple[int, int]]:
    """Where each token of a text is read best, in the order of the text.

    Windows share tokens: each is taken from the window in which it stands farthest from an edge
    that is not an end of the text, where the model sees most of what is around it.

    Returns:
        For every token the piece, and the position in it.
    """
    places: list[tuple[int, int]] = []
    context: list[float] = []
    last = len(reading.pieces) - 1
    for number, piece in enumerate(reading.pieces):
        found = text_places(piece, sequence)
        start = piece.start if isinstance(piece, Window) else 0
        for at, position in enumerate(found):
            left = float("inf") if number == 0 else at
            right = float("inf") if number == last else len(found) - 1 - at
            if start + at == len(places):
                places.append((number, position))
                context.append(min(left, right))
            elif min(left, right) > context[start + at]:
                places[start + at] = (number, position)
                context[start + at] = min(left, right)
    return places


def _even(sizes: Sequence[int], total: int) -> list[int]:
    """How many tokens of two texts to keep, so that the longer one loses first."""
    shorter = min(*sizes, total // 2)
    kept = [shorter, total - shorter]
    return kept if sizes[0] <= sizes[1] else kept[::-1]


def _chosen(encoding: Encoding, part: Part) -> int:
    if encoding.n_sequences == 1 or part == "first":
        return 0
    if part == "second":
        return 1
    sizes = [end - first for first, end in (_span(encoding, 0), _span(encoding, 1))]
    return int(sizes[1] > sizes[0])


def _span(encoding: Encoding, sequence: int) -> tuple[int, int]:
    """First and one past the last token of a text of the encoding; equal where it is empty."""
    ids = encoding.sequence_ids
    if sequence not in ids:
        return len(ids), len(ids)
    return ids.index(sequence), len(ids) - ids[::-1].index(sequence)


def _columns(encoding: Encoding) -> dict[str, list[Any]]:
    return {name: getattr(encoding, name) for name in _COLUMNS}


def _window(
    columns: dict[str, list[Any]],
    slices: Sequence[tuple[int, int | None]],
    start: int = 0,
    new_tokens: int = 0,
) -> Window:
    taken = {
        name: [value for first, end in slices for value in column[first:end]]
        for name, column in columns.items()
    }
    return Window(**taken, start=start, new_tokens=new_tokens)


def join_windows(reading: Reading) -> list[tuple[int, int]]:
    """Where each token of a text is read with the most text around it: (window, place in it).

    Of the tokens that neighbouring windows share, the first half is the earlier window's, the
    second the later one's. Special tokens before the text are the first window's, those behind it
    the last one's. Of texts, not of pairs.
    """
    inner = [
        [at for at, part in enumerate(piece.sequence_ids) if part is not None]
        for piece in reading.pieces
    ]
    starts = [piece.start if isinstance(piece, Window) else 0 for piece in reading.pieces]
    ends = [start + len(places) for start, places in zip(starts, inner, strict=True)]
    borders = [(end + start + 1) // 2 for end, start in zip(ends, starts[1:], strict=False)]
    found = []
    last = len(inner) - 1
    for window, (start, places) in enumerate(zip(starts, inner, strict=True)):
        first = borders[window - 1] - start if window else 0
        end = borders[window] - start if window < last else len(places)
        chosen = places[first:end]
        if window == 0:
            chosen = [*range(places[0] if places else 0), *chosen]
        if window == last:
            size = len(reading.pieces[window])
            chosen = [*chosen, *range(places[-1] + 1 if places else 0, size)]
        found += [(window, at) for at in chosen]
    return found
