"""The inputs of a command: texts that were typed after it, or lines of standard input."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import click

from serve.errors import InputError


class Lines:
    """The inputs: TEXTs, or lines of standard input, of which few are held at once.

    Attributes:
        count: Texts read so far.
        open: Texts read and not answered yet.
        typed: They are being typed.
        total: How much there is: TEXTs, or bytes of a file on standard input; None if unknown.
    """

    def __init__(self, kind: type[Any], texts: tuple[str, ...]) -> None:
        self.kind = kind
        self.texts = texts
        self.typed = not texts and sys.stdin.isatty()
        self.total = len(texts) if texts else _bytes_of_input()
        self.count = 0
        self._pending: deque[str] = deque()  # read and not answered

    def __iter__(self) -> Iterator[Any]:
        lines: Iterable[str | bytes] = self.texts or _lines_of_input()
        for row, line in enumerate(lines):
            self._pending.append("")
            self.count = row + 1
            try:
                text = self._pending[-1] = _decoded(line, first=row == 0)
                item = _item(self.kind, text)
            except InputError as error:
                if self.texts:
                    raise click.UsageError(f"{self.where(row)}: {error.message}") from error
                raise InputError(error.message, row) from error
            yield item

    @property
    def open(self) -> int:
        return len(self._pending)

    def answered(self) -> str:
        """The text that has an answer now."""
        return self._pending.popleft()

    def size(self, text: str) -> int:
        """How much of `total` a text is."""
        return 1 if self.texts else len(text.encode("utf-8", "surrogateescape")) + 1

    def where(self, row: int) -> str:
        """What a user calls an input, by its place from 0."""
        if self.texts:
            return f"TEXT {row + 1}" if len(self.texts) > 1 else "TEXT"
        return f"line {row + 1}"


def _bytes_of_input() -> int | None:
    try:
        found = os.fstat(sys.stdin.fileno())
    except (OSError, ValueError, io.UnsupportedOperation):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _lines_of_input() -> Iterable[str | bytes]:
    """Bytes where there are any, so that what is not UTF-8 is one line's error."""
    return getattr(sys.stdin, "buffer", sys.stdin)


def _decoded(line: str | bytes, first: bool) -> str:
    """A line without its end; the first without a byte order mark."""
    if isinstance(line, bytes):
        try:
            line = line.decode("utf-8-sig" if first else "utf-8")
        except UnicodeDecodeError as error:
            reason = f"{error.reason} at its byte {error.start + 1}"
            raise InputError(f"this is not UTF-8: {reason}") from error
    return line.rstrip("\r\n")


def _item(kind: type[Any], text: str) -> Any:
    """A text, or the pair or words that it holds.

    Where a task takes objects, a text that is one is never taken for a text: the pipeline refuses
    keys that it does not know.
    """
    keys = kind.input_keys()
    if keys and text.lstrip().startswith("{"):
        try:
            item = json.loads(text)
        except ValueError:
            item = None
        if isinstance(item, dict):
            return item
    if getattr(kind, "pairs", "no") != "must":
        return text
    [names] = keys
    example = ", ".join(f'"{name}": ...' for name in names)
    if names != ("question", "context"):
        raise InputError(f"expected {{{example}}}, got {text!r:.60}")
    question, tab, context = text.partition("\t")
    if not tab:
        raise InputError(
            f"expected a question and a context: separated by a tab, or {{{example}}}; "
            f"got {text!r:.60}"
        )
    return question, context
