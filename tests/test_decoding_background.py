"""An engine that other threads give requests to."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import serve_bundles as bundles

from serve.decoding.background import BackgroundEngine
from serve.decoding.engine import Engine
from serve.decoding.generator import Generator
from serve.decoding.request import Request
from serve.errors import InputError, ServeError


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    return Generator(bundles.decoder_bundle(tmp_path_factory.mktemp("b") / "d"))


def test_many_threads_are_answered_as_each_alone(decoder):
    rng = np.random.default_rng(0)
    requests = [
        Request(
            rng.integers(2, 90, int(rng.integers(1, 20))).tolist(),
            decoder.settings(max_new_tokens=int(rng.integers(1, 20)), seed=at, temperature=1.2),
        )
        for at in range(40)
    ]
    expected = [decoder.generate_ids([one.input_ids], one.settings)[0] for one in requests]
    with BackgroundEngine(Engine(decoder, slots=5, chunk=8)) as engine:

        def answer(request):
            stream = engine.submit(request)
            tokens = [token for _, token in stream]
            assert tokens == list(stream.result(1)[0].token_ids)
            assert list(stream) == []  # once more is empty, and does not hang
            return tokens

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(answer, requests)) == expected


def test_refusals_reach_the_caller(decoder):
    with BackgroundEngine(Engine(decoder, slots=1, positions=10)) as engine:
        with pytest.raises(InputError, match="positions"):
            engine.submit(Request([3] * 9, decoder.settings(max_new_tokens=5)))
        assert engine.submit(Request([3], decoder.settings(max_new_tokens=2))).result(20)
    with pytest.raises(ServeError, match="closed"):
        engine.submit(Request([3], decoder.settings(max_new_tokens=2)))


def test_cancelling_frees_the_slot(decoder):
    with BackgroundEngine(Engine(decoder, slots=1)) as engine:
        long = engine.submit(Request([5], decoder.settings(max_new_tokens=60)))
        waiting = engine.submit(Request([6], decoder.settings(max_new_tokens=60)))
        after = engine.submit(Request([7], decoder.settings(max_new_tokens=3)))
        waiting.cancel()
        assert waiting.result(20)[0].finish_reason in ("cancelled", "length")
        next(long)
        long.cancel()
        assert len(long.result(20)[0].token_ids) >= 1
        assert len(after.result(20)[0].token_ids) == 3
        long.cancel()  # it has ended: nothing happens
        assert len(engine.submit(Request([8], decoder.settings(max_new_tokens=2))).result(20)) == 1


def test_a_failure_ends_what_shared_the_step_and_no_more(decoder, monkeypatch):
    engine = Engine(decoder, slots=4)
    step, broken = engine.cache.step, threading.Event()

    def fail(*args, **kwargs):
        if broken.is_set():
            broken.clear()
            raise MemoryError("no memory left")
        return step(*args, **kwargs)

    monkeypatch.setattr(engine.cache, "step", fail)
    with BackgroundEngine(engine) as running:
        broken.set()
        stream = running.submit(Request([5], decoder.settings(max_new_tokens=9)))
        with pytest.raises(MemoryError, match="no memory left"):
            stream.result(20)
        with pytest.raises(MemoryError):
            list(stream)
        again = running.submit(Request([5], decoder.settings(max_new_tokens=9)))
        expected = decoder.generate_ids([[5]], decoder.settings(max_new_tokens=9))
        assert [list(again.result(20)[0].token_ids)] == expected


def test_closing_ends_what_runs(decoder):
    engine = BackgroundEngine(Engine(decoder, slots=1))
    streams = [engine.submit(Request([5], decoder.settings(max_new_tokens=60))) for _ in range(30)]
    engine.close(20)
    assert not engine._thread.is_alive()
    with pytest.raises(ServeError, match="closed before"):
        streams[-1].result(1)
    with pytest.raises(TimeoutError):
        never = BackgroundEngine(Engine(decoder, slots=1))
        try:
            never.submit(Request([5], decoder.settings(max_new_tokens=60))).result(0)
        finally:
            never.close()


def test_a_request_that_failed_may_still_be_cancelled(decoder, monkeypatch):
    engine = Engine(decoder, slots=2)
    step, failures = engine.cache.step, [1]

    def fail(*args, **kwargs):
        if failures:
            raise MemoryError(f"no memory left {failures.pop()}")
        return step(*args, **kwargs)

    monkeypatch.setattr(engine.cache, "step", fail)
    with BackgroundEngine(engine) as running:
        stream = running.submit(Request([5], decoder.settings(max_new_tokens=9)))
        with pytest.raises(MemoryError):
            stream.result(20)
        stream.cancel()
        stream.cancel()
        again = running.submit(Request([5], decoder.settings(max_new_tokens=9)))
        assert len(again.result(20)[0].token_ids) == 9


def test_a_failure_leaves_those_that_wait(decoder, monkeypatch):
    engine = Engine(decoder, slots=1)
    step, failures = engine.cache.step, [1]
    submitted = threading.Event()

    def fail(*args, **kwargs):
        submitted.wait(20)
        if failures:
            raise MemoryError(f"no memory left {failures.pop()}")
        return step(*args, **kwargs)

    monkeypatch.setattr(engine.cache, "step", fail)
    with BackgroundEngine(engine) as running:
        settings = decoder.settings(max_new_tokens=9)
        streams = [running.submit(Request([5 + at], settings)) for at in range(4)]
        next(streams[0])
        submitted.set()
        with pytest.raises(MemoryError):
            streams[0].result(20)
        for at, stream in enumerate(streams[1:], 1):
            expected = decoder.generate_ids([[5 + at]], settings)
            assert [list(stream.result(20)[0].token_ids)] == expected


def test_an_input_that_the_encoder_refuses_ends_alone(tmp_path):
    generator = Generator(bundles.seq2seq_bundle(tmp_path / "s"))
    settings = generator.settings(max_new_tokens=9)
    inputs = [[5, 6], [4000], [7], [9, 10, 11]]
    engine = Engine(generator, slots=8)
    tickets = [engine.submit(Request(ids, settings)) for ids in inputs]
    for _ in engine.run():
        pass
    assert isinstance(tickets[1].error, InputError)
    for at in (0, 2, 3):
        assert tickets[at].error is None
        expected = generator.generate_ids([inputs[at]], settings)
        assert [list(tickets[at].completions[0].token_ids)] == expected
    with BackgroundEngine(engine) as running:
        with pytest.raises(InputError, match="encoder"):
            running.submit(Request([4000], settings)).result(20)
        with pytest.raises(InputError, match="token -1"):
            running.submit(Request([5, -1], settings))
