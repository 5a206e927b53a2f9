"""Requests that share an engine are answered as each is alone, however they come and go."""

import numpy as np
import pytest
import serve_bundles as bundles

from serve.decoding.buffers import BufferCache, DeviceStore
from serve.decoding.engine import Engine
from serve.decoding.generator import Generator
from serve.decoding.request import Request
from serve.errors import InputError, ServeError

MIXED = [
    {"max_new_tokens": 9},
    {"max_new_tokens": 12, "do_sample": True, "seed": 5, "temperature": 1.5},
    {"max_new_tokens": 6, "num_beams": 3, "num_return_sequences": 2},
    {"max_new_tokens": 5, "do_sample": True, "seed": 2, "num_return_sequences": 3, "top_k": 30},
    {"max_new_tokens": 14, "repetition_penalty": 1.4, "no_repeat_ngram_size": 2},
    {"max_new_tokens": 7, "num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.7},
    {"max_new_tokens": 8, "frequency_penalty": 0.5, "logprobs": 2},
    {"max_new_tokens": 10, "eos_token_id": tuple(range(2, 60))},
    {"max_new_tokens": 1},
    {"max_new_tokens": 6, "num_beams": 2, "do_sample": True, "seed": 8, "early_stopping": True},
    {"max_new_tokens": 11, "prompt_lookup": 4},
]


def make_requests(generator, rng, count):
    rows = []
    for at in range(count):
        ids = rng.integers(2, 90, int(rng.integers(1, 30))).tolist()
        rows.append(Request(ids, generator.settings(**MIXED[at % len(MIXED)])))
    return rows


def alone(generator, request):
    engine = generator.engine_for([request])
    ticket = engine.submit(request)
    for _ in engine.run():
        pass
    return ticket.completions


def same(found, expected):
    """Equal tokens and reasons; scores and log-probabilities as close as float32 sums are."""
    assert [(one.token_ids, one.finish_reason) for one in found] == [
        (one.token_ids, one.finish_reason) for one in expected
    ]
    for one, other in zip(found, expected, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-4)
        if other.logprobs is not None:
            assert [at.token for at in one.logprobs] == [at.token for at in other.logprobs]
            gaps = [
                a.logprob - b.logprob for a, b in zip(one.logprobs, other.logprobs, strict=True)
            ]
            assert np.abs(gaps).max(initial=0) < 1e-4


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("which", ["decoder", "seq2seq"])
def test_requests_that_come_and_go_are_answered_as_alone(which, seed, decoder, seq2seq):
    generator = decoder if which == "decoder" else seq2seq
    rng = np.random.default_rng(seed)
    requests = make_requests(generator, rng, 14)
    arrivals = np.sort(rng.integers(0, 25, len(requests)))
    engine = Engine(generator, slots=6, positions=48, chunk=7)
    tickets, step, fewer = [], 0, set()
    while len(tickets) < len(requests) or engine.busy:
        while len(tickets) < len(requests) and arrivals[len(tickets)] <= step:
            tickets.append(engine.submit(requests[len(tickets)]))
        engine.advance()
        fewer.add(engine.running)
        step += 1
    assert max(fewer) > 2, "requests did not share steps"
    assert engine.cache.rows == 0
    for ticket, one in zip(tickets, requests, strict=True):
        same(ticket.completions, alone(generator, one))


def test_events_are_the_tokens_of_the_completions(decoder):
    rng = np.random.default_rng(4)
    requests = make_requests(decoder, rng, len(MIXED))
    engine = Engine(decoder, slots=8)
    tickets = [engine.submit(one) for one in requests]
    streamed, ended = {}, []
    for event in engine.run():
        if event.token is None:
            ended.append(event.ticket)
        else:
            streamed.setdefault((id(event.ticket), event.sequence), []).append(event.token)
    assert sorted(map(id, ended)) == sorted(map(id, tickets))
    for ticket in tickets:
        if ticket.request.settings.num_beams == 1:
            for at, one in enumerate(ticket.completions):
                assert streamed.get((id(ticket), at), []) == list(one.token_ids)


def test_a_long_prompt_is_read_in_chunks_between_the_steps_of_others(decoder, monkeypatch):
    engine = Engine(decoder, slots=4, chunk=6)
    first = engine.submit(Request([5, 6, 7], decoder.settings(max_new_tokens=20)))
    engine.advance()
    sizes, runs = [], []
    extend, step = engine.cache.extend, engine.cache.step

    def read(row, ids, *args, **kwargs):
        sizes.append(len(ids))
        runs.append("read")
        return extend(row, ids, *args, **kwargs)

    def stepped(*args, **kwargs):
        runs.append("step")
        return step(*args, **kwargs)

    monkeypatch.setattr(engine.cache, "extend", read)
    monkeypatch.setattr(engine.cache, "step", stepped)
    ids = np.random.default_rng(0).integers(2, 90, 40).tolist()
    second = engine.submit(Request(ids, decoder.settings(max_new_tokens=3)))
    for _ in engine.run():
        pass
    assert sizes == [6] * 6 + [4]
    assert runs[:13] == ["read", "step"] * 6 + ["read"]
    same(second.completions, alone(decoder, second.request))
    same(first.completions, alone(decoder, first.request))


def test_cancelled_requests_leave_and_the_others_go_on(decoder):
    rng = np.random.default_rng(3)
    requests = make_requests(decoder, rng, 8)
    engine = Engine(decoder, slots=6, chunk=5)
    tickets = [engine.submit(one) for one in requests]
    for step in range(4):
        engine.advance()
        victim = tickets[2 * step]
        engine.cancel(victim)
        assert victim.done
        engine.cancel(victim)  # once more does nothing
    for _ in engine.run():
        pass
    for ticket, one in list(zip(tickets, requests, strict=True))[1::2]:
        same(ticket.completions, alone(decoder, one))
    reasons = {one.finish_reason for ticket in tickets[::2] for one in ticket.completions}
    assert "cancelled" in reasons


def test_what_can_never_fit_is_refused_at_once(decoder):
    engine = Engine(decoder, slots=2, positions=20)
    kv = 2 * bundles.LAYERS * bundles.KV_HEADS * bundles.HEAD_DIM * 4
    assert engine.cache_bytes == 2 * 20 * kv
    with pytest.raises(InputError, match="10 prompt tokens and 15 new tokens need 24 positions"):
        engine.submit(Request(range(2, 12), decoder.settings(max_new_tokens=15)))
    with pytest.raises(InputError, match=r"3 rows .* does not fit an engine of 2 slots"):
        engine.submit(Request([5], decoder.settings(num_beams=3)))
    with pytest.raises(InputError, match="token 4000 is outside"):
        engine.submit(Request([4000], decoder.settings()))
    with pytest.raises(InputError, match="penalty_alpha"):
        decoder.settings(penalty_alpha=0.5)
    with pytest.raises(InputError, match="slots=0"):
        Engine(decoder, slots=0)
    assert not engine.busy
    ticket = engine.submit(Request(range(2, 12), decoder.settings(max_new_tokens=11)))
    for _ in engine.run():
        pass
    assert len(ticket.completions[0].token_ids) == 11


def test_memory_of_a_device_is_used_as_that_of_the_host(tmp_path, monkeypatch):
    generator = Generator(bundles.decoder_bundle(tmp_path / "d"))
    requests = make_requests(generator, np.random.default_rng(1), len(MIXED))
    expected = [alone(generator, one) for one in requests]
    made = []

    def on_device(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.store = DeviceStore(self.shapes, self.slots, self.capacity, self.decoder)
        made.append(self.store)

    original = BufferCache.__init__
    monkeypatch.setattr(BufferCache, "__init__", on_device)
    engine = Engine(generator, slots=6, chunk=7)
    tickets = [engine.submit(one) for one in requests]
    for _ in engine.run():
        pass
    assert made
    for ticket, one in zip(tickets, expected, strict=True):
        same(ticket.completions, one)


def test_rows_of_beams_are_copied_from_where_they_differ(tmp_path, monkeypatch):
    generator = Generator(bundles.decoder_bundle(tmp_path / "d"))
    copied = []
    copy = BufferCache._copy

    def watch(self, source, target, start, stop):
        copied.append((start, stop))
        copy(self, source, target, start, stop)

    monkeypatch.setattr(BufferCache, "_copy", watch)
    prompt = np.random.default_rng(0).integers(2, 90, 30).tolist()
    generator.complete([prompt], generator.settings(num_beams=4, max_new_tokens=20))
    assert copied[:3] == [(0, 30)] * 3  # the prompt, once for each further beam
    assert len(copied) > 3
    assert all(start >= 30 for start, _ in copied[3:])


@pytest.mark.parametrize("kind", [{}, {"num_beams": 2}, {"do_sample": True}])
def test_scores_that_are_no_numbers_end_their_request_alone(decoder, monkeypatch, kind):
    engine = Engine(decoder, slots=4)
    good = engine.submit(Request([5, 6], decoder.settings(max_new_tokens=8)))
    engine.advance()
    bad = engine.submit(Request([7], decoder.settings(max_new_tokens=8, **kind)))
    add = engine.cache.add
    monkeypatch.setattr(engine.cache, "add", lambda *args: add(*args) * np.float32(np.nan))
    for _ in engine.run():
        pass
    assert isinstance(bad.error, ServeError)
    assert "NaN" in str(bad.error)
    assert good.error is None
    same(good.completions, alone(decoder, good.request))
    monkeypatch.setattr(Engine, "_decide", broken)
    with pytest.raises(ServeError, match="no luck"):
        decoder.generate_ids([[5]])


def broken(self, ticket, *others):
    ticket.error = ServeError("no luck")


def test_short_prompts_are_read_together_up_to_a_chunk(decoder, monkeypatch):
    engine = Engine(decoder, slots=8, chunk=10)
    engine.submit(Request([5, 6, 7], decoder.settings(max_new_tokens=20)))
    engine.advance()
    sizes, add = [], engine.cache.add

    def read(prompts, *args):
        sizes.append(len(prompts) * max(map(len, prompts)))
        return add(prompts, *args)

    monkeypatch.setattr(engine.cache, "add", read)
    settings = decoder.settings(max_new_tokens=20)
    for at in range(5):
        engine.submit(Request([9 + at] * 4, settings))
    for step in range(1, 4):
        engine.advance()
        assert len(sizes) == step  # a step of those that run after each
    assert sizes == [8, 8, 4]


def test_slots_are_kept_for_beams_that_are_yet_to_come(decoder):
    engine = Engine(decoder, slots=4)
    others = sorted(set(range(decoder.vocabulary)) - {7})
    beams = decoder.settings(num_beams=4, max_new_tokens=6, begin_suppress_tokens=others)
    first = engine.submit(Request([5, 6], beams))
    engine.advance()
    assert engine.cache.rows == 1
    second = engine.submit(Request([8], decoder.settings(max_new_tokens=4)))
    for _ in engine.run():
        pass
    for ticket in (first, second):
        same(ticket.completions, alone(decoder, ticket.request))


def test_a_request_that_is_being_read_may_be_cancelled(decoder):
    engine = Engine(decoder, slots=3, chunk=4)
    settings = decoder.settings(max_new_tokens=12)
    first = engine.submit(Request([5, 6], settings))
    engine.advance()
    long = engine.submit(Request([7] * 20, settings))
    engine.advance()
    assert engine.places.reading is long
    engine.cancel(long)
    assert engine.cache.rows == 1
    assert long.completions[0].finish_reason == "cancelled"
    last = engine.submit(Request([8] * 9, settings))
    for _ in engine.run():
        pass
    for ticket in (first, last):
        same(ticket.completions, alone(decoder, ticket.request))


def test_a_prompt_that_is_being_read_makes_way_for_more_beams(decoder):
    engine = Engine(decoder, slots=5, chunk=6)
    others = sorted(set(range(decoder.vocabulary)) - {7})
    beams = decoder.settings(num_beams=4, max_new_tokens=6, begin_suppress_tokens=others)
    first = engine.submit(Request([5, 6], beams))
    engine.advance()
    long = engine.submit(Request(list(range(2, 22)), decoder.settings(max_new_tokens=5)))
    engine.advance()
    assert engine.places.reading is long
    assert engine.cache.rows == 5
    for _ in engine.run():
        pass
    for ticket in (first, long):
        same(ticket.completions, alone(decoder, ticket.request))
