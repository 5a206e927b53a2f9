"""Reads the `.model` file of SentencePiece: pieces and how text is prepared for them.

The file is a Protocol Buffers message (sentencepiece_model.proto); the few fields that decide an
id are read from its wire format, so that nothing but this module is needed.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import DataError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM, BPE = 1, 2
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary.

    Attributes:
        text: the piece, spaces written as U+2581.
        score: log-probability (Unigram) or minus the rank (BPE).
        kind: `NORMAL`, `UNKNOWN`, `CONTROL`, `USER_DEFINED`, `UNUSED` or `BYTE`.
    """

    text: str
    score: float = 0.0
    kind: int = NORMAL


@dataclass(frozen=True)
class PieceFile:
    """What a `.model` file says.

    Attributes:
        pieces: the vocabulary, in the order of the ids.
        algorithm: `UNIGRAM` or `BPE`.
        byte_fallback: unknown characters are spelt in byte pieces.
        charsmap: the compiled table of character replacements, empty for none.
        dummy_prefix: a space goes before the text.
        trims_spaces: spaces at both ends go, and runs of spaces become one.
    """

    pieces: tuple[Piece, ...]
    algorithm: int
    byte_fallback: bool
    charsmap: bytes
    dummy_prefix: bool
    trims_spaces: bool


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and raw value of each field of a message."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        wire = key & 7
        value: int | bytes
        if wire == _VARINT:
            value, at = _varint(data, at)
        else:
            if wire == _BYTES:
                size, at = _varint(data, at)
            elif wire in (_FOUR, _EIGHT):
                size = 4 if wire == _FOUR else 8
            else:
                raise ValueError(f"wire type {wire}")
            if at + size > end:
                raise ValueError("the data ends within a field")
            value = data[at : at + size]
            at += size
        yield key >> 3, value


def _piece(data: bytes) -> Piece:
    text, score, kind = "", 0.0, NORMAL
    for number, value in _fields(data):
        if number == 1:
            text = value.decode("utf-8")  # type: ignore[union-attr]
        elif number == 2:
            (score,) = struct.unpack("<f", value)  # type: ignore[arg-type]
        elif number == 3:
            kind = int(value)
    return Piece(text, score, kind)


def read(path: Path) -> PieceFile:
    """Read a `.model` file.

    Raises:
        DataError: when it is no SentencePiece model, or of a sort that has no exact counterpart
            in `tokenizer.json`.
    """
    pieces: list[Piece] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    try:
        for number, value in _fields(path.read_bytes()):
            if number == 1:
                pieces.append(_piece(value))  # type: ignore[arg-type]
            elif number in (2, 3):
                target = trainer if number == 2 else normalizer
                target.update(_fields(value))  # type: ignore[arg-type]
        if not pieces:
            raise ValueError("no pieces")
    except (ValueError, IndexError, TypeError, struct.error, AttributeError) as error:
        raise DataError(
            f"{path}: not a SentencePiece model ({error}); expected the file that its trainer "
            "wrote (a tiktoken vocabulary of the same name needs its tokenizer.json instead)"
        ) from error
    algorithm = int(trainer.get(3, UNIGRAM))
    if algorithm not in (UNIGRAM, BPE):
        raise DataError(
            f"{path}: a SentencePiece model of type {algorithm}; expected {UNIGRAM} (unigram) or "
            f"{BPE} (bpe)"
        )
    if trainer.get(24) or not normalizer.get(5, 1):
        raise DataError(
            f"{path}: treat_whitespace_as_suffix or escape_whitespaces=false is set; expected "
            "spaces to be written as U+2581 in front of words"
        )
    charsmap = normalizer.get(2, b"")
    return PieceFile(
        tuple(pieces),
        algorithm,
        byte_fallback=bool(trainer.get(35, 0)),
        charsmap=charsmap if isinstance(charsmap, bytes) else b"",
        dummy_prefix=bool(normalizer.get(3, 1)),
        trims_spaces=bool(normalizer.get(4, 1)),
    )
