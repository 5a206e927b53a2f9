"""An engine in a thread of its own, for requests that come from many threads.

>>> with BackgroundEngine(Engine(generator, slots=16)) as engine:
...     for token in engine.submit(request):
...         ...
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator
from types import TracebackType

from serve.decoding.engine import Engine
from serve.decoding.request import Completion, Request
from serve.decoding.ticket import Event, Ticket
from serve.errors import ServeError


class Stream(Iterator[tuple[int, int]]):
    """A request that another thread runs: iterate for (sequence, token) pairs as they come.

    Attributes:
        ticket: Its place in the engine.
    """

    def __init__(self, engine: BackgroundEngine, ticket: Ticket) -> None:
        self.ticket = ticket
        self._engine = engine
        self._events: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._error: BaseException | None = None

    def __next__(self) -> tuple[int, int]:
        found = self._events.get()
        if found is None:
            self._events.put(None)  # whoever asks again gets the same answer
            if self._error is not None:
                raise self._error
            raise StopIteration
        return found

    def result(self, timeout: float | None = None) -> list[Completion]:
        """The answers, best first, once the request has ended.

        Args:
            timeout: Seconds to wait at most.

        Raises:
            TimeoutError: It has not ended in time; it goes on.
            ServeError: The engine failed or was closed.
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"the request has not ended after {timeout} seconds")
        if self._error is not None:
            raise self._error
        return self.ticket.completions or []

    def cancel(self) -> None:
        """End the request soon; what it has written becomes its result."""
        self._engine._cancel(self)

    def _end(self, error: BaseException | None = None) -> None:
        self._error = error
        self._ended.set()
        self._events.put(None)


class BackgroundEngine:
    """Runs an engine in a thread, until it is closed.

    Args:
        engine: Belongs to the thread from now on.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._streams: dict[int, Stream] = {}  # by the id of their tickets
        self._inbox: deque[Stream] = deque()
        self._leaving: deque[Stream] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> Stream:
        """Start a request.

        Raises:
            InputError: It does not fit the model, or could never fit the engine.
            ServeError: The engine was closed.
        """
        stream = Stream(self, self.engine.ticket(request))
        with self._wake:
            if self._closing:
                raise ServeError("the engine was closed")
            self._inbox.append(stream)
            self._wake.notify()
        return stream

    def close(self, timeout: float | None = None) -> None:
        """End what runs, and the thread; requests that had not ended raise ServeError."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout)

    def __enter__(self) -> BackgroundEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _cancel(self, stream: Stream) -> None:
        with self._wake:
            self._leaving.append(stream)
            self._wake.notify()

    def _work(self) -> None:
        while (leaving := self._take()) is not None:
            try:
                for ticket in leaving:
                    self.engine.cancel(ticket)
                    self._tell(Event(ticket))
                events = self.engine.advance()
            except Exception as error:  # whatever went wrong concerns all that shared the step
                self._fail(error)
                continue
            for event in events:
                self._tell(event)
        self._fail(ServeError("the engine was closed before the request ended"), everyone=True)

    def _take(self) -> list[Ticket] | None:
        """Wait for something to do, and take it in.

        Returns:
            Requests that are to end; None where the engine is closed.
        """
        with self._wake:
            while not (self._closing or self._inbox or self._leaving or self.engine.busy):
                self._wake.wait()
            if self._closing:
                return None
            while self._inbox:
                stream = self._inbox.popleft()
                self._streams[id(stream.ticket)] = stream
                self.engine.enqueue(stream.ticket)
            leaving = {id(stream.ticket): stream.ticket for stream in self._leaving}
            self._leaving.clear()
        return [ticket for key, ticket in leaving.items() if key in self._streams]

    def _tell(self, event: Event) -> None:
        stream = self._streams[id(event.ticket)]
        if event.token is not None:
            stream._events.put((event.sequence, event.token))
            return
        del self._streams[id(event.ticket)]
        stream._end(event.ticket.error)

    def _fail(self, error: Exception, everyone: bool = False) -> None:
        """Tell those that had begun, or everyone, that they will not end."""
        failed = [one for one in self._streams.values() if not self.engine.waits(one.ticket)]
        everyone = everyone or not failed
        if everyone:
            failed = list(self._streams.values())
            with self._wake:
                failed += self._inbox
                self._inbox.clear()
        self.engine.clear(everyone)
        for stream in failed:
            self._streams.pop(id(stream.ticket), None)
            stream._end(error)
