"""How far a long work is, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

_SHOW_AFTER = 1.0
"""Seconds before a bar appears: short work needs none."""


class Progress:
    """A bar on a terminal; elsewhere, as in a log, a line now and then. Short work shows neither.

    Args:
        unit: What is counted, in the plural.
        total: The amount of all work, in units or in what `advance` is told; None if unknown.
        quiet: Show nothing.
        every: Seconds between lines where there is no terminal.
        stream: Where to write; standard error by default.
        clock: Seconds since any point.
    """

    def __init__(
        self,
        unit: str,
        total: int | None = None,
        quiet: bool = False,
        every: float = 10.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.unit = unit
        self.total = total
        self.quiet = quiet
        self.every = every
        self.stream = stream if stream is not None else sys.stderr
        self.clock = clock
        self.count = 0
        self.amount = 0
        self._terminal = self.stream.isatty()
        self._bar: Bar | None = None
        self._began = self._said = clock()

    def __enter__(self) -> Self:
        self._began = self._said = self.clock()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def advance(self, count: int = 1, amount: int | None = None) -> None:
        """More is done: so many units, and how much of `total` they are (as many by default)."""
        self.count += count
        self.amount += count if amount is None else amount
        if self.quiet:
            return
        now = self.clock()
        if self._terminal:
            if self._bar is None and now - self._began >= _SHOW_AFTER:
                self._bar = _bar(self.stream, self.total)
            if self._bar is not None:
                self._bar.update(
                    self._bar.task_ids[0], completed=self.amount, description=self._counted(now)
                )
        elif now - self._said >= self.every:
            self._said = now
            print(self.line(now), file=self.stream, flush=True)

    def line(self, now: float) -> str:
        """What is done, as text."""
        share = f", {min(1.0, self.amount / self.total):.0%}" if self.total else ""
        return self._counted(now) + share

    def _counted(self, now: float) -> str:
        rate = self.count / max(now - self._began, 1e-9)
        return f"{self.count:,} {self.unit}, {rate:,.1f}/s"


def _bar(stream: TextIO, total: int | None) -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    bar = Bar(*columns, console=Console(file=stream), transient=True)
    bar.add_task("", total=total)
    bar.start()
    return bar
