"""Guesses ahead and known beginnings of prompts save runs, and change no answer."""

import numpy as np
import pytest
import serve_bundles as bundles

from serve.decoding.engine import Engine
from serve.decoding.generator import Generator
from serve.decoding.prefix_cache import BLOCK, PrefixCache
from serve.decoding.request import Request
from serve.decoding.speculation import LookUp
from serve.errors import InputError

PROMPTS = [
    [5, 6, 7, 8, 9] * 5,
    [12, 14, 13, 12, 12, 19, 12, 12, 12],
    list(range(2, 30)),
]
KINDS = [
    {},
    {"do_sample": True, "seed": 3, "temperature": 0.6},
    {"repetition_penalty": 1.3},
    {"logprobs": 1},
    {"eos_token_id": tuple(range(2, 40))},
    {"regex": "(ab|cd)*x?"},
]


def run(generator, request):
    """The answer, and how many runs of the decoder it took."""
    engine = generator.engine_for([request])
    cache, runs = engine.cache, []
    for name in ("add", "extend", "step"):
        original = getattr(cache, name)

        def counted(*args, original=original, **kwargs):
            runs.append(1)
            return original(*args, **kwargs)

        setattr(cache, name, counted)
    ticket = engine.submit(request)
    for _ in engine.run():
        pass
    return ticket.completions[0], len(runs)


def equal(found, expected):
    assert (found.token_ids, found.finish_reason) == (expected.token_ids, expected.finish_reason)
    if expected.logprobs is not None:
        pairs = zip(found.logprobs, expected.logprobs, strict=True)
        assert all(one.token == two.token for one, two in pairs)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(kind) or "greedy")
@pytest.mark.parametrize("which", ["decoder", "seq2seq"])
def test_prompt_lookup_writes_what_plain_decoding_writes(which, kind, decoder, seq2seq):
    generator = decoder if which == "decoder" else seq2seq
    for prompt in PROMPTS:
        plain = Request(prompt, generator.settings(max_new_tokens=30, **kind))
        expected, steps = run(generator, plain)
        settings = generator.settings(max_new_tokens=30, prompt_lookup=6, **kind)
        found, fewer = run(generator, Request(prompt, settings))
        equal(found, expected)
        assert fewer <= steps


def test_prompt_lookup_takes_fewer_runs_where_a_text_repeats_itself(decoder):
    loop, prompt = {"regex": "(abcde){8}"}, decoder.tokenizer.encode(["abcde" * 3])[0].ids
    expected, steps = run(decoder, Request(prompt, decoder.settings(max_new_tokens=45, **loop)))
    settings = decoder.settings(max_new_tokens=45, prompt_lookup=8, **loop)
    found, fewer = run(decoder, Request(prompt, settings))
    equal(found, expected)
    assert fewer < steps / 2


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(kind) or "greedy")
@pytest.mark.parametrize("which", ["same", "other"])
def test_a_draft_model_writes_what_plain_decoding_writes(which, kind, layout, tmp_path, decoder):
    seed = 0 if which == "same" else 9
    draft = Generator(bundles.decoder_bundle(tmp_path / "draft", seed=seed))
    ahead = Generator(decoder.manifest, draft=draft)
    for prompt in PROMPTS:
        request = Request(prompt, decoder.settings(max_new_tokens=25, draft_tokens=4, **kind))
        expected, steps = run(decoder, request)
        found, fewer = run(ahead, request)
        equal(found, expected)
        if which == "same" and not kind:
            assert fewer < steps / 3


def test_a_draft_model_of_an_encoder_decoder(seq2seq, tmp_path):
    ahead = Generator(seq2seq.manifest, draft=Generator(bundles.seq2seq_bundle(tmp_path / "s")))
    request = Request(PROMPTS[0], seq2seq.settings(max_new_tokens=20))
    expected, steps = run(seq2seq, request)
    found, fewer = run(ahead, request)
    equal(found, expected)
    assert fewer < steps / 3
    with pytest.raises(InputError, match="another architecture"):
        Generator(seq2seq.manifest, draft=Generator(bundles.decoder_bundle(tmp_path / "d")))


def test_guessing_stops_while_others_share_the_steps(decoder):
    settings = decoder.settings(max_new_tokens=20, prompt_lookup=5)
    engine = Engine(decoder, slots=3)
    tickets = [engine.submit(Request(prompt, settings)) for prompt in PROMPTS]
    for _ in engine.run():
        pass
    for ticket in tickets:
        equal(ticket.completions[0], run(decoder, ticket.request)[0])


def test_what_is_looked_up():
    look = LookUp([1, 2, 3, 4, 1, 2], 3)
    assert look.propose(9) == [3, 4, 1]
    assert look.propose(2) == [3, 4]
    look.add([7])
    assert look.propose(9) == []
    look.add([1, 2])
    assert look.propose(9) == [7, 1, 2]  # the latest agreement
    assert LookUp([5, 6, 5, 6, 5, 6], 8).propose(9) == [5, 6, 5, 6, 5, 6, 5, 6]  # it goes on
    look.judge(3, 0)
    assert len(look.propose(9)) == 1
    look.judge(1, 1)
    assert len(look.propose(9)) == 2
    assert LookUp([1], 4).propose(9) == LookUp([], 4).propose(9) == []


def prefixed(decoder, limit=10**7):
    return Generator(decoder.manifest, prefix_cache=limit)


def test_a_shared_beginning_is_computed_once(decoder):
    generator = prefixed(decoder)
    rng = np.random.default_rng(0)
    beginning = rng.integers(2, 90, BLOCK + 5).tolist()
    settings = decoder.settings(max_new_tokens=6)
    cached = []
    for end in range(4):
        request = Request([*beginning, *rng.integers(2, 90, end + 2).tolist()], settings)
        engine = generator.engine_for([request])
        ticket = engine.submit(request)
        for _ in engine.run():
            pass
        equal(ticket.completions[0], run(decoder, request)[0])
        cached.append(ticket.cached_tokens)
    assert cached == [0, BLOCK, BLOCK, BLOCK]
    assert generator.prefixes.hits == 3 * BLOCK
    with pytest.raises(InputError, match="0 bytes"):
        PrefixCache(0)


@pytest.mark.parametrize("lookup", [0, 5])
def test_a_conversation_goes_on_from_what_was_answered(decoder, lookup):
    generator = prefixed(decoder)
    settings = decoder.settings(max_new_tokens=BLOCK, prompt_lookup=lookup)
    first = Request([5, 6, 7, 8, 5, 6], settings)
    [[answer]] = generator.complete([first.input_ids], settings)
    assert len(answer.token_ids) == BLOCK
    shorter = decoder.settings(max_new_tokens=8, prompt_lookup=lookup)
    second = Request([*first.input_ids, *answer.token_ids, 9, 9], shorter)
    engine = generator.engine_for([second])
    ticket = engine.submit(second)
    for _ in engine.run():
        pass
    assert ticket.cached_tokens == BLOCK
    equal(ticket.completions[0], run(decoder, second)[0])


def test_a_prefix_cache_keeps_to_its_budget_and_forgets_the_least_used(decoder):
    cache = decoder.new_cache(1, 64)
    size = BLOCK * cache.position_bytes
    prefixes = PrefixCache(3 * size)
    rng = np.random.default_rng(1)
    first, second, third = (rng.integers(2, 90, 2 * BLOCK).tolist() for _ in range(3))

    def keep(tokens):
        cache.add([tokens])
        prefixes.keep(cache, 0, tokens)
        cache.resize(0)
        assert prefixes.held <= prefixes.limit

    keep(first)
    keep(second)  # room for one block more: the end of the first prompt goes
    assert prefixes.held == 3 * size
    assert len(prefixes.find([*first, 3])) == 1
    assert len(prefixes.find([*second, 3])) == 2
    prefixes.find([*first, 3])  # used last
    keep(third)
    assert len(prefixes.find([*third, 3])) == 2
    assert len(prefixes.find([*first, 3])) == 1
    assert prefixes.find([*second, 3]) == []
    assert len(prefixes.find(third)) == 1  # the last token is always read
    other = [third[0] + 1, *third[1:]]
    assert prefixes.find([*other, 3]) == []
    prefixes.clear()
    assert prefixes.held == 0


def test_known_prompts_are_read_while_others_run(decoder):
    generator = prefixed(decoder)
    rng = np.random.default_rng(5)
    beginning = rng.integers(2, 90, BLOCK).tolist()
    settings = decoder.settings(max_new_tokens=8)
    requests = [
        Request([*beginning, *rng.integers(2, 90, 1 + at).tolist()], settings) for at in range(6)
    ]
    engine = Engine(generator, slots=4, chunk=8)
    tickets = []
    for request in requests:
        tickets.append(engine.submit(request))
        engine.advance()
    for _ in engine.run():
        pass
    for ticket in tickets:
        equal(ticket.completions[0], run(decoder, ticket.request)[0])
    assert sum(ticket.cached_tokens for ticket in tickets) >= 3 * BLOCK


def test_contrastive_search_sees_its_whole_prompt_and_is_not_guessed(layout, tmp_path):
    """Neither stands with it: blocks come without hidden states, guesses without candidates."""
    folder = bundles.decoder_bundle(tmp_path / "d", layout, hidden=True)
    generator = Generator(folder)
    known = Generator(generator.manifest, prefix_cache=10**7, draft=Generator(folder))
    prompt = [*PROMPTS[1], *PROMPTS[0]]
    for given in ({"top_k": 5}, {"top_k": 1}, {"top_k": 1, "prompt_lookup": 4}):
        settings = generator.settings(penalty_alpha=0.6, max_new_tokens=12, **given)
        plain = generator.settings(penalty_alpha=0.6, max_new_tokens=12, top_k=given["top_k"])
        request = Request(prompt, settings)
        expected, _ = run(generator, Request(prompt, plain))
        for _ in range(2):
            equal(run(known, request)[0], expected)


def test_the_ends_of_prompts_are_forgotten_before_their_beginnings(decoder):
    cache = decoder.new_cache(1, 64)
    prefixes = PrefixCache(2 * BLOCK * cache.position_bytes)
    rng = np.random.default_rng(2)
    first, second = (rng.integers(2, 90, 2 * BLOCK).tolist() for _ in range(2))
    cache.add([first])
    prefixes.keep(cache, 0, first)
    assert len(prefixes.find([*first, 3])) == 2
    cache.resize(0)
    cache.add([second[:BLOCK]])
    prefixes.keep(cache, 0, second[:BLOCK])
    assert len(prefixes.find([*first, 3])) == 1
    small = PrefixCache(BLOCK * cache.position_bytes)  # for one block of the two
    cache.resize(0)
    cache.add([first])
    small.keep(cache, 0, first)
    assert len(small.find([*first, 3])) == 1


def test_a_draft_model_that_holds_less_stops_guessing(decoder, tmp_path):
    draft = Generator(bundles.decoder_bundle(tmp_path / "draft"))
    draft.spec = draft.spec.model_copy(update={"max_length": 18})
    ahead = Generator(decoder.manifest, draft=draft)
    for prompt in ([5, 6, 7, 8], PROMPTS[0]):
        request = Request(prompt, decoder.settings(max_new_tokens=30, eos_token_id=(999,)))
        equal(run(ahead, request)[0], run(decoder, request)[0])
