"""Which rows of a cache belong to which request, as requests grow, shrink, come and go."""

from __future__ import annotations

from serve.decoding.cache import Cache
from serve.decoding.search import Move
from serve.decoding.ticket import Ticket


class Placement:
    """The rows of a cache: those of running requests in front, behind them one that is being read.

    Args:
        cache: Its rows belong to the requests here alone.

    Attributes:
        running: Requests whose rows step.
        reading: The request whose prompt is being read, in the row behind those that step.
    """

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.running: list[Ticket] = []
        self.reading: Ticket | None = None

    def spread(self, begun: list[tuple[Ticket, int, Move]], first: int) -> None:
        """Give requests that have read a row each, from `first` on, all their rows side by side."""
        for line, (_, row, _) in enumerate(begun):  # close the gaps of those that ended at once
            if row != first + line:
                self.cache.copy(row, first + line)
        self.cache.resize(first + sum(len(move.tokens) for _, _, move in begun))
        end = self.cache.rows
        for line in reversed(range(len(begun))):  # from behind, so that no row is needed any more
            ticket, _, move = begun[line]
            start = end = end - len(move.tokens)
            ticket.rows = list(range(start, start + len(move.tokens)))
            ticket.tokens = move.tokens
            for row in reversed(ticket.rows):
                if row != first + line:
                    self.cache.copy(first + line, row)
        self.running += [ticket for ticket, _, _ in begun]

    def place(self, ticket: Ticket, move: Move) -> list[int]:
        """Give the rows of the next step a place in the cache; returns the rows left over.

        A row that is continued stays where it is with its first continuation, so no copy ever
        overwrites what another one reads.
        """
        old, new = ticket.rows, [-1] * len(move.parents)
        free = list(old)
        for at, parent in enumerate(move.parents):
            if old[parent] in free:
                new[at] = old[parent]
                free.remove(old[parent])
        for at, parent in enumerate(move.parents):
            if new[at] < 0:
                new[at] = free.pop(0) if free else self._another()
                self.cache.copy(old[parent], new[at])
        ticket.rows, ticket.tokens = new, move.tokens
        return free

    def _another(self) -> int:
        """One more row that steps; a prompt that is being read moves out of its way."""
        row = self.cache.rows
        self.cache.resize(row + 1)
        if self.reading is not None:
            self.cache.copy(row - 1, row)
            row -= 1
        return row

    def leave(self, rows: list[int]) -> None:
        """Fill rows that are free with the last ones."""
        if not rows:
            return
        total = self.cache.rows - (self.reading is not None) - len(rows)
        holes = sorted(row for row in rows if row < total)
        for ticket in self.running:
            for at, row in enumerate(ticket.rows):
                if row >= total:
                    ticket.rows[at] = hole = holes.pop(0)
                    self.cache.copy(row, hole)
        if self.reading is not None:
            self.cache.copy(self.cache.rows - 1, total)
        self.cache.resize(total + (self.reading is not None))
