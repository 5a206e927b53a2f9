"""Several requests under way in an engine of their own, and their tokens as they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from serve.decoding.engine import Engine
from serve.decoding.request import Request
from serve.decoding.ticket import Ticket
from serve.errors import InputError


class Generation(Iterator[tuple[int, int]]):
    """Requests under way: iterate for (request, token) pairs of their first sequences.

    Beams are decided at the end: their tokens come then.
    """

    def __init__(self, engine: Engine, requests: Sequence[Request]) -> None:
        self.engine = engine
        self.tickets: list[Ticket] = []
        for at, request in enumerate(requests):
            try:
                self.tickets.append(engine.submit(request))
            except InputError as error:
                error.row = at
                raise
        self._numbers = {id(ticket): at for at, ticket in enumerate(self.tickets)}
        self._shown = [0] * len(self.tickets)
        self._ready: list[tuple[int, int]] = []

    @property
    def finish_reasons(self) -> list[str | None]:
        """Why each request's first sequence ended; None while it runs."""
        return [
            ticket.completions[0].finish_reason if ticket.completions else None
            for ticket in self.tickets
        ]

    def stop(self, row: int) -> None:
        """End a request: it gets no more tokens."""
        self.engine.cancel(self.tickets[row])
        self._ready = [pair for pair in self._ready if pair[0] != row]

    def __next__(self) -> tuple[int, int]:
        while not self._ready:
            if not self.engine.busy:
                raise StopIteration
            self._ready = self._advance()[::-1]
        return self._ready.pop()

    def _advance(self) -> list[tuple[int, int]]:
        fresh = []
        for event in self.engine.advance():
            if event.ticket.error is not None:
                raise event.ticket.error
            row = self._numbers[id(event.ticket)]
            if event.token is not None and event.sequence == 0:
                self._shown[row] += 1
                fresh.append((row, event.token))
            elif event.token is None and event.ticket.completions:
                tokens = event.ticket.completions[0].token_ids
                fresh += [(row, token) for token in tokens[self._shown[row] :]]
        return fresh
