"""Requests of different lengths and settings that share each step of a decoder.

Requests join when they arrive and leave when they have ended. Their rows lie side by side in one
`Cache`: those that step in front, behind them one whose prompt is still being read. A long prompt
is read a chunk at a time, a step of the others after each, so that those never wait for longer than
a chunk takes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from serve.decoding.cache import Cache
from serve.decoding.placement import Placement
from serve.decoding.prefix_cache import BLOCK, PrefixCache
from serve.decoding.request import Request
from serve.decoding.search import Move
from serve.decoding.setting_checks import whole
from serve.decoding.speculation import drafts
from serve.decoding.ticket import Event, Ticket, positions_of
from serve.errors import InputError

if TYPE_CHECKING:
    from serve.decoding.generator import Generator

SLOTS = 16
CHUNK = 128
_ALONE = 4  # chunks are so much longer while nobody waits for them
_ROWS_FOR_READER = 4  # from so many rows on the graph that reads prompts also steps faster


class Engine:
    """Runs requests together. Not for several threads at once: see `serve.decoding.background`.

    Args:
        generator: The model.
        slots: Most rows that step together; a request takes one, with beams one for each.
        positions: Most positions of a row, prompt and answer together; by default as many as the
            model can hold, at most 4096. More than the model can hold are cut to that.
        chunk: Most tokens of prompts that are read between two steps of running requests; an
            encoder reads its input as a whole.
        hidden: Keep hidden states, for contrastive search.

    Attributes:
        cache_bytes: Memory that the rows take when all slots are full, keys and values together.
    """

    def __init__(
        self,
        generator: Generator,
        slots: int = SLOTS,
        positions: int | None = None,
        chunk: int = CHUNK,
        hidden: bool = False,
    ) -> None:
        for name, value in (("slots", slots), ("chunk", chunk), ("positions", positions)):
            if not whole(1)(value) and not (name == "positions" and value is None):
                raise InputError(f"{name}={value!r}: expected a whole number from 1")
        if positions is None:
            positions = min(generator.max_length, 4096)
        self.generator = generator
        self.chunk = chunk
        self.prefixes = generator.prefixes if generator.encoder is None else None
        self.cache: Cache = generator.new_cache(slots, positions, hidden)
        self.cache_bytes = slots * self.cache.capacity * self.cache.position_bytes
        self.places = Placement(self.cache)
        self._waiting: deque[Ticket] = deque()

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._waiting or self.places.reading or self.places.running)

    @property
    def running(self) -> int:
        """Requests whose tokens are being written."""
        return len(self.places.running)

    @property
    def waiting(self) -> int:
        """Requests that have not begun."""
        return len(self._waiting)

    def submit(self, request: Request) -> Ticket:
        """Take a request; `advance` runs it. Raises as `ticket`."""
        ticket = self.ticket(request)
        self.enqueue(ticket)
        return ticket

    def enqueue(self, ticket: Ticket) -> None:
        """Let a ticket of this engine wait for its turn."""
        self._waiting.append(ticket)

    def ticket(self, request: Request) -> Ticket:
        """What a request becomes, without running it; may be called from any thread.

        Raises:
            InputError: It does not fit the model, or could never fit this engine.
        """
        if not isinstance(request, Request):
            raise InputError(
                f"{request!r:.60}: expected a `Request` of token ids and settings, "
                f"got {type(request).__name__}"
            )
        prompt, room = self.generator.prepare(request)
        positions = positions_of(request, prompt, room)
        if positions > self.cache.capacity:
            raise InputError(
                f"{len(prompt)} prompt tokens and {room} new tokens need {positions} positions, "
                f"a row of this engine holds {self.cache.capacity}; lower max_new_tokens, shorten "
                "the prompt or give the engine more positions"
            )
        if request.settings.rows > self.cache.slots:
            raise InputError(
                f"a request of {request.settings.rows} rows (beams, sequences or candidates) does "
                f"not fit an engine of {self.cache.slots} slots"
            )
        search = self.generator.search(request, prompt, room)
        if search.needs_hidden and not self.cache.hidden:
            raise InputError("contrastive search needs an engine with hidden=True")
        ticket = Ticket(request, search, prompt, room)
        if request.settings.rows == 1 and not search.needs_hidden:
            source = request.input_ids if self.generator.encoder is not None else None
            ticket.drafts = drafts(request.settings, prompt, source, self.generator.draft)
        return ticket

    def waits(self, ticket: Ticket) -> bool:
        """Whether a request has not begun."""
        return ticket in self._waiting

    def cancel(self, ticket: Ticket) -> None:
        """End a request; what it has written so far becomes its completions."""
        if ticket.done:
            return
        ticket.completions, ticket.drafts = ticket.search.completions(), None
        if ticket in self._waiting:
            self._waiting.remove(ticket)
        elif ticket is self.places.reading:
            self.places.reading = None
            self.cache.resize(self.cache.rows - 1)
        elif ticket in self.places.running:
            self.places.running.remove(ticket)
            self.places.leave(ticket.rows)

    def clear(self, everyone: bool = True) -> None:
        """Forget all requests, or those that have begun, as after a failure."""
        self.places.running, self.places.reading = [], None
        if everyone:
            self._waiting.clear()
        self.cache.resize(0)

    def run(self) -> Iterator[Event]:
        """Advance until every request has ended."""
        while self.busy:
            yield from self.advance()

    def advance(self) -> list[Event]:
        """Read up to a chunk of prompts, and let all running requests take a step.

        Returns:
            What was decided, in the order of the requests.
        """
        ran = bool(self.places.running)
        events = self._read()
        if ran and self.places.running:
            events += self._step()
        return events

    # Prompts

    def _read(self) -> list[Event]:
        """Read prompts: one chunk while others run, else until something runs."""
        events: list[Event] = []
        if self.places.reading is None:
            events += self._read_together()
        if self.places.reading is None:
            return events
        ticket, row = self.places.reading, self.cache.rows - 1
        most = self._most()
        while self.places.reading is not None:
            done = int(self.cache.lengths[row])
            part = ticket.prompt[done : done + most]
            logits = self.cache.extend(row, part)
            self._show(ticket, self.cache.states)
            if done + len(part) == len(ticket.prompt):
                self.places.reading = None
                events += self._begin([ticket], [row], logits[None])
            elif self.places.running:
                break
        return events

    def _read_together(self) -> list[Event]:
        """Read the prompts of those that wait and fit, as long as they fit a chunk together; or set
        the first aside to be read in parts.
        """
        together: list[Ticket] = []
        longest, most = 0, self._most()
        while self._waiting:
            ticket = self._waiting[0]
            wanted = sum(one.request.settings.rows for one in (*together, ticket))
            if self._reserved() + wanted > self.cache.slots:
                break
            size = self._size(ticket)
            if self._known(ticket) or (size > self.chunk and self.generator.encoder is None):
                if not together:
                    self._set_aside(self._waiting.popleft())
                break
            if together and max(longest, size) * (len(together) + 1) > most:
                break
            longest = max(longest, size)
            together.append(self._waiting.popleft())
        if not together:
            return []
        events: list[Event] = []
        together, memory = self._encode(together, events)
        if not together:
            return events
        first = self.cache.rows
        logits = self.cache.add([ticket.prompt for ticket in together], memory)
        for line, ticket in enumerate(together):
            states = self.cache.states
            self._show(ticket, None if states is None else states[line, : len(ticket.prompt)])
        return events + self._begin(together, list(range(first, self.cache.rows)), logits)

    def _encode(
        self, tickets: list[Ticket], events: list[Event]
    ) -> tuple[list[Ticket], dict[str, np.ndarray]]:
        """What the encoder gives of some requests; an input that it refuses ends its own alone."""
        try:
            inputs = [ticket.request.input_ids for ticket in tickets]
            return tickets, self.generator.encode(inputs)
        except InputError as error:
            if len(tickets) == 1:
                tickets[0].error = error
                self._end(tickets[0], events)
                return [], {}
        good = [one for ticket in tickets for one in self._encode([ticket], events)[0]]
        return self._encode(good, events) if good else ([], {})

    def _show(self, ticket: Ticket, states: np.ndarray | None) -> None:
        """Show a search that compares hidden states those of its prompt."""
        if ticket.search.needs_hidden and states is not None:
            ticket.search.see(states)

    def _most(self) -> int:
        """Tokens that may be read in one run."""
        return self.chunk if self.places.running else _ALONE * self.chunk

    def _size(self, ticket: Ticket) -> int:
        """Tokens that have to be read for a request."""
        if self.generator.encoder is not None:
            return max(len(ticket.request.input_ids), len(ticket.prompt))
        return len(ticket.prompt)

    def _known(self, ticket: Ticket) -> bool:
        prefixes = self._prefixes_for(ticket)
        return prefixes is not None and prefixes.knows(ticket.prompt)

    def _prefixes_for(self, ticket: Ticket) -> PrefixCache | None:
        """Where the beginning of its prompt may be found: not with the states it may need."""
        return None if ticket.search.needs_hidden else self.prefixes

    def _reserved(self) -> int:
        """Slots that running requests may come to take."""
        taken = sum(ticket.request.settings.rows for ticket in self.places.running)
        return taken + (self.places.reading.request.settings.rows if self.places.reading else 0)

    def _set_aside(self, ticket: Ticket) -> None:
        """Begin a row whose prompt is read in parts, behind what is known of it."""
        prefixes = self._prefixes_for(ticket)
        blocks = prefixes.find(ticket.prompt) if prefixes is not None else []
        ticket.cached_tokens = BLOCK * len(blocks)
        self.cache.begin(blocks, ticket.prompt[: ticket.cached_tokens])
        self.places.reading = ticket

    def _begin(self, tickets: list[Ticket], rows: list[int], logits: np.ndarray) -> list[Event]:
        """Let requests whose prompts were read, in the last rows, take their first tokens."""
        events: list[Event] = []
        begun: list[tuple[Ticket, int, Move]] = []
        for line, (ticket, row) in enumerate(zip(tickets, rows, strict=True)):
            if self.prefixes is not None:
                self.prefixes.keep(self.cache, row, ticket.prompt)
            move = self._decide(ticket, [logits[line]], None, events)
            if move is None:
                self._end(ticket, events)
            else:
                begun.append((ticket, row, move))
        self.places.spread(begun, rows[0])
        return events

    # Steps

    def _step(self) -> list[Event]:
        """One step of all running requests."""
        if len(self.places.running) == 1 and self.places.reading is None and not self._waiting:
            drafted = self._speculate(self.places.running[0])
            if drafted is not None:
                return drafted
        rows = sum(len(ticket.rows) for ticket in self.places.running)
        tokens = np.zeros(rows, np.int64)
        for ticket in self.places.running:
            tokens[ticket.rows] = ticket.tokens
        reader = rows >= _ROWS_FOR_READER and self.generator.batched_steps
        logits = self.cache.step(tokens, by_reader=reader)
        states = self.cache.states if self.cache.hidden else None
        events: list[Event] = []
        freed: list[int] = []
        for ticket in list(self.places.running):
            own = None if states is None else states[ticket.rows]
            move = self._decide(ticket, [logits[row] for row in ticket.rows], own, events)
            if move is None:
                self.places.running.remove(ticket)
                freed += ticket.rows
                self._end(ticket, events)
            else:
                freed += self.places.place(ticket, move)
        self.places.leave(freed)
        return events

    def _speculate(self, ticket: Ticket) -> list[Event] | None:
        """Check in one run what is drafted of the only running request; None: nothing is.

        Each place is decided as plain decoding does, so the answer is the same.
        """
        row, drafts = ticket.rows[0], ticket.drafts
        before = int(self.cache.lengths[row])
        most = len(ticket.prompt) + ticket.room - 2 - before  # the last token needs no place
        proposed = drafts.propose(most) if drafts is not None else []
        if drafts is None or not proposed:
            return None
        tokens = [ticket.tokens[0], *proposed]
        logits = self.cache.extend(row, tokens, every=True, steps=True)
        events: list[Event] = []
        right = 0
        for at, line in enumerate(logits):
            move = self._decide(ticket, [line], None, events)
            if move is None:
                self.cache.trim(row, before + 1 + at)
                self.places.running.remove(ticket)
                self._end(ticket, events)
                self.places.leave([row])
                return events
            ticket.tokens = move.tokens
            if at == len(proposed) or move.tokens[0] != proposed[at]:
                break
            right += 1
        self.cache.trim(row, before + 1 + right)
        drafts.judge(len(proposed), right)
        return events

    def _decide(
        self,
        ticket: Ticket,
        logits: list[np.ndarray],
        states: np.ndarray | None,
        events: list[Event],
    ) -> Move | None:
        """Let a request choose; an error of its own ends it, and nobody else."""
        try:
            move = ticket.search.advance(logits, states)
        except Exception as error:
            ticket.error = error
            return None
        if ticket.drafts is not None:
            ticket.drafts.add([token for _, token in ticket.search.fresh])
        events += [Event(ticket, at, token) for at, token in ticket.search.fresh]
        return move

    def _end(self, ticket: Ticket, events: list[Event]) -> None:
        if self.prefixes is not None and ticket.request.settings.rows == 1 and ticket.rows:
            [row] = ticket.rows  # a conversation goes on from its answer
            held = self.cache.tokens[row, : self.cache.lengths[row]]
            self.prefixes.keep(self.cache, row, held.tolist())
        ticket.completions = ticket.search.completions()
        ticket.rows, ticket.drafts = [], None
        events.append(Event(ticket))
