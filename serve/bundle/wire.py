"""Protobuf's wire format, as far as an ONNX file needs to be walked without decoding it."""

from __future__ import annotations

from collections.abc import Iterator

VARINT = -1
"""Stands for the end of a field that is a number."""


def fields(view: memoryview, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yields each field of a message; weights are skipped over, not read.

    Args:
        view: The file.
        at: Where the message starts.
        end: Where it ends.

    Yields:
        (field number, start, end) of a length-delimited field, (field number, value, `VARINT`) of a
        number. Fixed-width fields are skipped.

    Raises:
        ValueError: The bytes are no message, or are cut.
        IndexError: They are cut within a number.
    """
    while at < end:
        tag, at = varint(view, at)
        wire = tag & 7
        if wire == 0:
            value, at = varint(view, at)
            yield tag >> 3, value, VARINT
        elif wire == 1:
            at += 8
        elif wire == 5:
            at += 4
        elif wire == 2:
            size, at = varint(view, at)
            if at + size > end:
                raise ValueError("a field reaches beyond the end: the file is truncated")
            yield tag >> 3, at, at + size
            at += size
        else:
            raise ValueError(f"byte {at} has the unknown wire type {wire}")


def varint(view: memoryview, at: int) -> tuple[int, int]:
    """(the number at `at`, the place behind it)."""
    value = shift = 0
    while True:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError(f"byte {at} is no varint")
