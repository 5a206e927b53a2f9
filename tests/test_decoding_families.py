"""Engines of models that differ in their facts: mixed requests at random, against each alone.

Every request is also answered by an engine of its own with plain settings (no guesses, no known
prefixes, the prompt read at once), greedy ones by the Keras model's full pass. More seeds:
`ENGINE_SEEDS=20 pytest tests/test_decoding_families.py`.
"""

import dataclasses
import os

import keras
import numpy as np
import pytest
import serve_bundles as bundles
import tiny

import export
from serve.decoding import engine as engines
from serve.decoding import growing, prefix_cache
from serve.decoding.engine import Engine
from serve.decoding.generator import Generator
from serve.decoding.request import Request
from serve.runtime.session import SessionOptions

SEEDS = int(os.environ.get("ENGINE_SEEDS", "1"))
ONE = SessionOptions(threads=1)
NAMES = [
    "decoder/rotary-grouped-gated",
    "decoder/alibi",
    "decoder/sandwich-softcaps",  # soft caps, a window in a layer
    "decoder/odd-heads",  # heads that no fused attention takes
    "decoder/relative-scaled",
    "decoder/experts",  # attention sinks
    "encoder-decoder/relative-rms",
    "encoder-decoder/different-stacks",
    "encoder-decoder/sinusoidal-postnorm",
]
TARGETS = ("onnxruntime", "portable")
KEPT = {"prompt_lookup": 0}
UNSEEN = (10**6,)  # an end token that never comes


@pytest.fixture(scope="module")
def generators(tmp_path_factory):
    """Opens a row's bundle, which is made once for each target."""
    made: dict[tuple[str, str], Generator] = {}

    def get(name: str, target: str) -> Generator:
        if (name, target) not in made:
            out = tmp_path_factory.mktemp("bundles") / "bundle"
            if name in ("decoder", "encoder-decoder"):
                layout = "buffer" if target == "onnxruntime" else "grow"
                if name == "decoder":
                    bundles.decoder_bundle(out, layout, hidden=True)
                else:
                    bundles.seq2seq_bundle(out, layout)
            else:
                model = tiny.model(name)
                export.to_onnx(model, out, target=target, hidden_states=True, verify=False)
            made[name, target] = Generator(out, ONE)
        return made[name, target]

    return get


def wishes(rng, generator, room):
    """Settings at random, and what ends an answer early in some."""
    beams = int(rng.integers(2, 5))
    kind = [
        {},
        {"do_sample": True, "temperature": float(rng.uniform(0.4, 2)), "seed": 3},
        {"do_sample": True, "num_return_sequences": int(rng.integers(2, 5)), "seed": 4},
        {
            "num_beams": beams,
            "num_return_sequences": int(rng.integers(1, beams + 1)),
            "length_penalty": float(rng.uniform(-1, 2)),
            "early_stopping": [True, False, "never"][int(rng.integers(3))],
        },
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0, "num_return_sequences": 4},
        {"num_beams": 2, "do_sample": True, "seed": 5},
        {"logprobs": 2},
        {"penalty_alpha": 0.6, "top_k": int(rng.integers(1, 5))},
    ][int(rng.integers(8 if "last_hidden_state" in generator.decoder.outputs else 7))]
    wish = {"max_new_tokens": int(rng.integers(1, room + 1)), "eos_token_id": UNSEEN, **kind}
    if rng.random() < 0.4:
        wish["prompt_lookup"] = int(rng.integers(1, 8))
    if rng.random() < 0.3:
        wish["repetition_penalty"] = float(rng.uniform(0.7, 1.5))
    if rng.random() < 0.2:
        wish["no_repeat_ngram_size"] = int(rng.integers(1, 4))
    if rng.random() < 0.4:
        wish["eos_token_id"] = rng.choice(generator.vocabulary, 5, replace=False)
    if generator.manifest.tokenizer is not None and rng.random() < 0.5:
        wish["regex"] = "(ab|cd|[0-9]+ )*x?"
    elif generator.manifest.tokenizer is not None and rng.random() < 0.5:
        wish["stop"] = generator.tokenizer.decode(rng.integers(10, 90, 1).tolist())
    return wish


def requests_of(rng, generator, count, slots):
    """Prompts of all lengths, some of which begin alike; some fill the model to its last place."""
    longest = min(generator.max_length, 37)
    beginning = rng.integers(1, 37, longest).tolist()
    made = []
    while len(made) < count:
        size = int(rng.integers(1, longest - 6))
        ids = rng.integers(1, 37, size).tolist()
        shared = int(rng.integers(0, size + 1))
        ids[:shared] = beginning[:shared]
        prefix = None
        if generator.encoder is not None and rng.random() < 0.5:
            start = int(generator.defaults.decoder_start_token_id or 0)
            prefix = [start, *rng.integers(1, 37, int(rng.integers(0, 4))).tolist()]
        held = size if generator.encoder is None else len(prefix or [0])
        wish = wishes(rng, generator, longest - held)
        if rng.random() < 0.2 and "penalty_alpha" not in wish:
            wish["max_new_tokens"] = longest - held + 1
        request = Request(ids, generator.settings(**wish), prefix)
        if request.settings.rows <= slots:
            made.append(request)
    return made


def answered(engine, request):
    ticket = engine.submit(request)
    for _ in engine.run():
        pass
    return ticket.completions


def run_at_random(rng, engine, requests):
    """Submit and cancel at random times; returns tickets, streams and who was cancelled."""
    arrivals = np.sort(rng.integers(0, 2 * len(requests), len(requests)))
    tickets, streams, ended, cancelled, step = [], {}, set(), set(), 0
    while len(tickets) < len(requests) or engine.busy:
        while len(tickets) < len(requests) and arrivals[len(tickets)] <= step:
            tickets.append(engine.submit(requests[len(tickets)]))
        if tickets and rng.random() < 0.06:
            victim = int(rng.integers(len(tickets)))
            if not tickets[victim].done:
                cancelled.add(victim)
                ended.add(id(tickets[victim]))
                engine.cancel(tickets[victim])
        for event in engine.advance():
            assert id(event.ticket) not in ended, "told of a request that had ended"
            if event.token is None:
                ended.add(id(event.ticket))
            else:
                streams.setdefault((id(event.ticket), event.sequence), []).append(event.token)
        step += 1
        assert step < 2000, "requests do not end"
        rows = sum(len(ticket.rows) for ticket in engine.places.running)
        assert engine.cache.rows == rows + (engine.places.reading is not None)
        assert engine.cache.memory.lines == len(set(engine.cache.memory._line))  # no unread ones
    assert engine.cache.rows == engine.waiting == 0
    return tickets, streams, cancelled


def equal(found, expected):
    assert [(one.token_ids, one.finish_reason) for one in found] == [
        (one.token_ids, one.finish_reason) for one in expected
    ]
    for one, other in zip(found, expected, strict=True):
        assert one.score == pytest.approx(other.score, abs=2e-3)
        if other.logprobs is not None:
            pairs = zip(one.logprobs, other.logprobs, strict=True)
            assert all(a.logprob == pytest.approx(b.logprob, abs=1e-3) for a, b in pairs)


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", [*NAMES, "decoder", "encoder-decoder"], scope="module")
def test_requests_in_company_are_answered_as_plainly_alone(
    name, target, seed, generators, monkeypatch
):
    plain = generators(name, target)
    rng = np.random.default_rng([NAMES.index(name) if name in NAMES else 99, seed])
    monkeypatch.setattr(growing, "_HOLES", 4)  # so that short texts have many
    for module in (prefix_cache, engines):
        monkeypatch.setattr(module, "BLOCK", 4)  # and several blocks
    slots, count = int(rng.integers(5, 9)), 10
    requests = requests_of(rng, plain, count, slots)
    budget = int(rng.integers(1, 9)) * 16 * plain.new_cache(1, 8).position_bytes
    draft = plain if rng.random() < 0.5 else None
    generator = Generator(plain.manifest, ONE, prefix_cache=budget, draft=draft)
    hidden = "last_hidden_state" in plain.decoder.outputs
    engine = Engine(generator, slots, chunk=int(rng.integers(1, 50)), hidden=hidden)
    tickets, streams, cancelled = run_at_random(rng, engine, requests)
    for at, (ticket, request) in enumerate(zip(tickets, requests, strict=True)):
        settings = dataclasses.replace(request.settings, **KEPT)
        own = Request(request.input_ids, settings, request.prefix)
        expected = answered(plain.engine_for([own]), own)
        assert ticket.error is None
        if at not in cancelled:
            equal(ticket.completions, expected)
        if settings.num_beams > 1:
            continue
        for number, one in enumerate(ticket.completions):
            assert streams.get((id(ticket), number), []) == list(one.token_ids)
            assert one.token_ids == expected[number].token_ids[: len(one.token_ids)]
    assert generator.prefixes.held <= budget


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NAMES, scope="module")
def test_the_likeliest_tokens_are_those_of_the_full_pass(name, target, generators):
    """Of several prompts at once, read in parts, by the Keras model that was exported."""
    generator, model = generators(name, target), tiny.model(name)
    rng = np.random.default_rng(5)
    inputs = [rng.integers(1, 37, size).tolist() for size in (3, 11, 6)]
    settings = generator.settings(max_new_tokens=8, eos_token_id=UNSEEN)
    engine = Engine(generator, slots=3, chunk=4)
    tickets = [engine.submit(Request(ids, settings)) for ids in inputs]
    for _ in engine.run():
        pass
    for ticket, ids in zip(tickets, inputs, strict=True):
        tokens = list(ticket.completions[0].token_ids)
        source = np.array([ids])
        if generator.encoder is None:
            feeds = {"input_ids": np.array([[*ids, *tokens]])}
            first = len(ids) - 1
        else:
            feeds = {
                "input_ids": source,
                "decoder_input_ids": np.array([[*ticket.prompt, *tokens]]),
            }
            first = len(ticket.prompt) - 1
        feeds["attention_mask"] = np.ones_like(feeds["input_ids"])
        logits = keras.ops.convert_to_numpy(model(feeds)["logits"])[0, first:-1]
        chosen = logits[np.arange(len(tokens)), tokens]
        assert len(tokens) == 8
        assert (logits.max(-1) - chosen).max() < 1e-3  # ties aside, the likeliest
