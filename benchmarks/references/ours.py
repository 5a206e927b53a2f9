"""This project's engines, without Keras."""

import time
from typing import Any

from benchmarks.references import work


class Encoder:
    """A bundle's encoder, fed in pieces as pipelines do."""

    def __init__(self, folder: str) -> None:
        from serve.bundle.manifest import Manifest
        from serve.runtime.session import Session, SessionOptions

        self.manifest = Manifest.load(folder)
        file = self.manifest.path(self.manifest.graphs["model"].file)
        self.session = Session(file, SessionOptions(threads=work.THREADS))

    def encode(self, batch: int, length: int) -> None:
        from serve.pipelines.encoder import tokens_per_run
        from serve.runtime.batching import token_batches

        feeds, most = work.encoder_inputs(batch, length), tokens_per_run(self.manifest, "cpu")
        for rows in token_batches([length] * batch, most, batch):
            self.session.run({name: values[rows] for name, values in feeds.items()})


class Writer:
    """A bundle that writes, through the engine that all of `serve` writes with."""

    def __init__(self, folder: str) -> None:
        from serve.decoding.generator import Generator
        from serve.runtime.session import SessionOptions

        self.generator = Generator(folder, SessionOptions(threads=work.THREADS))

    def prefill(self, length: int) -> None:
        request = self._request(work.ids(1, length)[0].tolist(), 256)
        self.engine = self.generator.engine_for([request])
        self.engine.submit(request)
        self.engine.advance()

    def decode(self, count: int) -> None:
        for _ in range(count):
            self.engine.advance()

    def translate(self, beams: int, batch: int) -> None:
        rows = work.sources(batch)
        self._run([self._request(row, work.TARGET, num_beams=beams) for row in rows])

    def alone(self) -> None:
        """The mixed requests one by one."""
        for request in self._mixed():
            self._run([request])

    def together(self) -> None:
        """The mixed requests, all there from the beginning."""
        self._run(self._mixed())

    def arriving(self) -> None:
        """The mixed requests, each `work.GAP` seconds behind the one before."""
        requests = self._mixed()
        engine = self.generator.engine_for(requests)
        tickets: list[Any] = []
        started = time.perf_counter()
        while len(tickets) < len(requests) or engine.busy:
            passed = time.perf_counter() - started
            while len(tickets) < len(requests) and passed >= work.GAP * len(tickets):
                tickets.append(engine.submit(requests[len(tickets)]))
            if engine.busy:
                engine.advance()
            else:
                time.sleep(0.001)
        _check(tickets)

    def circle(self, lookup: int, count: int) -> None:
        """A text that repeats itself, gone on with."""
        self._run([self._request(work.circle(), count, prompt_lookup=lookup)])

    def _mixed(self) -> list[Any]:
        rows, counts = work.requests()
        return [self._request(row, count) for row, count in zip(rows, counts, strict=True)]

    def _request(self, ids: list[int], count: int, **settings: Any) -> Any:
        """A request for exactly so many tokens."""
        from serve.decoding.request import Request

        exactly = {"max_new_tokens": count, "min_new_tokens": count}
        return Request(ids, self.generator.settings(**exactly, **settings))

    def _run(self, requests: list[Any]) -> None:
        engine = self.generator.engine_for(requests)
        tickets = [engine.submit(request) for request in requests]
        while engine.busy:
            engine.advance()
        _check(tickets)


def _check(tickets: list[Any]) -> None:
    """Every request has to be answered with as many tokens as it asked for."""
    for ticket in tickets:
        found, asked = len(ticket.completions[0].token_ids), ticket.request.settings.max_new_tokens
        if found != asked:
            raise SystemExit(f"{found} tokens instead of {asked}")
