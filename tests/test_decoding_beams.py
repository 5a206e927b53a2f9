"""Beams against exhaustive search and a plain reading of the papers."""

from itertools import product

import numpy as np
import pytest
import serve_bundles as bundles

from serve.decoding.generator import Generator
from serve.errors import BundleError, InputError

EOS = 1
PROMPT = [5, 6, 7, 8]


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    return Generator(bundles.decoder_bundle(tmp_path_factory.mktemp("b") / "d", hidden=True))


@pytest.fixture(scope="module")
def seq2seq(tmp_path_factory):
    return Generator(bundles.seq2seq_bundle(tmp_path_factory.mktemp("b") / "s"))


def log_softmax(values):
    values = values.astype(np.float64)
    return values - values.max() - np.log(np.exp(values - values.max()).sum())


class Model:
    """Log-probabilities of the next token, by the numpy model and with a memory."""

    def __init__(self, weights, begin, source=None):
        self.weights, self.begin, self.source = weights, list(begin), source
        self.known = {}

    def __call__(self, new):
        key = tuple(new)
        if key not in self.known:
            ids = self.begin + list(new)
            logits = bundles.full_pass(self.weights, ids, source=self.source)[-1]
            self.known[key] = log_softmax(logits)
        return self.known[key]

    def score(self, tokens):
        return sum(self(tokens[:at])[token] for at, token in enumerate(tokens))


def all_sequences(allowed, longest):
    """All sequences that end with EOS, or are as long as may be."""
    others = [token for token in allowed if token != EOS]
    for length in range(longest):
        for head in product(others, repeat=length):
            yield [*head, EOS]
    yield from map(list, product(others, repeat=longest))


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("which", ["decoder", "seq2seq"])
def test_beams_as_wide_as_the_tree_find_the_best_sequences(which, penalty, request):
    generator = request.getfixturevalue(which)
    vocabulary = generator.vocabulary
    rng = np.random.default_rng(7)
    allowed = [EOS, *rng.choice(np.arange(2, vocabulary), 4, replace=False).tolist()]
    weights = bundles.make_weights(vocabulary, seed=0 if which == "decoder" else 3)
    begin, source = (PROMPT, None) if which == "decoder" else ([0], PROMPT)
    model = Model(weights, begin, source)
    ranked = sorted(
        ((model.score(one) / len(one) ** penalty, one) for one in all_sequences(allowed, 4)),
        key=lambda pair: -pair[0],
    )
    settings = generator.settings(
        num_beams=300,
        num_return_sequences=5,
        max_new_tokens=4,
        length_penalty=penalty,
        early_stopping="never",
        suppress_tokens=sorted(set(range(vocabulary)) - set(allowed)),
    )
    [found] = generator.complete([PROMPT], settings)
    for one, (score, tokens) in zip(found, ranked[:5], strict=True):
        assert one.score == pytest.approx(score, abs=1e-4)
        ended = one.finish_reason == "eos"
        assert list(one.token_ids) + [EOS] * ended == tokens


def groups_by_the_paper(model, groups, size, penalty, length, ends, power=1.0, early=False):
    """Diverse beam search: groups in turn, each beam of which is scored less what earlier groups
    chose at the same time; every group keeps its own hypotheses.
    """
    running = [[([], 0.0)] for _ in range(groups)]
    finished = [[] for _ in range(groups)]
    done = [False] * groups
    for step in range(1, length + 1):
        chosen = []
        for group in range(groups):
            if done[group]:
                continue
            candidates = []
            for tokens, score in running[group]:
                values = np.array(model(tokens))
                for token in chosen:
                    values[token] -= penalty
                candidates += [(score + value, tokens, at) for at, value in enumerate(values)]
            candidates.sort(key=lambda one: -one[0])
            candidates = candidates[: size * max(2, 1 + len(ends))]
            going = []
            for rank, (score, tokens, token) in enumerate(candidates):
                if token in ends or step == length:
                    if rank < size:
                        finished[group].append((score / step**power, [*tokens, token]))
                else:
                    going.append(([*tokens, token], score))
            finished[group] = sorted(finished[group], key=lambda one: -one[0])[:size]
            running[group] = going[:size]
            full = len(finished[group]) == size
            longest = length if early == "never" and power > 0 else step
            best = running[group][0][1] / longest**power if running[group] else -np.inf
            may_improve = not full or (early is not True and best > finished[group][-1][0])
            if not running[group] or not may_improve:
                done[group] = True
                continue
            chosen += [tokens[-1] for tokens, _ in running[group]]
    found = [one for group in finished for one in group]
    return sorted(found, key=lambda one: -one[0])


@pytest.mark.parametrize(
    ("groups", "size", "penalty"), [(1, 4, 0.0), (2, 2, 0.9), (3, 2, 2.5), (4, 1, 1.3), (2, 3, 0.0)]
)
def test_groups_of_beams(decoder, groups, size, penalty):
    weights = bundles.make_weights(decoder.vocabulary)
    ends = tuple(range(1, 40))
    model = Model(weights, PROMPT)
    expected = groups_by_the_paper(model, groups, size, penalty, 9, ends)
    settings = decoder.settings(
        num_beams=groups * size,
        num_beam_groups=groups,
        num_return_sequences=groups * size,
        diversity_penalty=penalty,
        max_new_tokens=9,
        eos_token_id=ends,
    )
    [found] = decoder.complete([PROMPT], settings)
    assert len(found) == len(expected)
    for one, (score, tokens) in zip(found, expected, strict=True):
        assert one.score == pytest.approx(score, abs=1e-4)
        assert list(one.token_ids) == (tokens[:-1] if one.finish_reason == "eos" else tokens)


@pytest.mark.parametrize("seed", range(24))
def test_when_beams_end(decoder, seed):
    """By every rule of early stopping, with end tokens that come often and penalties of length."""
    rng = np.random.default_rng(seed)
    groups, size = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    given = {
        "length_penalty": float(rng.uniform(-1.5, 3)),
        "early_stopping": [True, False, "never"][seed % 3],
        "diversity_penalty": float(rng.uniform(0, 3)),
    }
    ends = tuple(rng.choice(decoder.vocabulary, int(rng.integers(1, 160)), replace=False).tolist())
    if groups * size == 1:
        size = 2
    prompt = rng.integers(2, 90, 4).tolist()
    weights = bundles.make_weights(decoder.vocabulary)
    expected = groups_by_the_paper(
        Model(weights, prompt), groups, size, given["diversity_penalty"], 8, ends,
        given["length_penalty"], given["early_stopping"],
    )  # fmt: skip
    beams = {"num_beams": groups * size, "num_beam_groups": groups}
    settings = decoder.settings(
        **given, **beams, num_return_sequences=groups * size, max_new_tokens=8, eos_token_id=ends
    )
    [found] = decoder.complete([prompt], settings)
    assert len(found) == len(expected)
    for one, (score, tokens) in zip(found, expected, strict=True):
        assert one.score == pytest.approx(score, abs=2e-4)
        assert list(one.token_ids) == (tokens[:-1] if one.finish_reason == "eos" else tokens)


def test_beams_with_a_stop_string_and_log_probabilities(decoder):
    plain = decoder.settings(num_beams=3, max_new_tokens=10, logprobs=0)
    [[best, *_]] = decoder.complete([PROMPT], plain)
    assert len(best.logprobs) == len(best.token_ids) == 10
    total = sum(one.logprob for one in best.logprobs)
    assert best.score == pytest.approx(total / 10, abs=1e-4)
    text = decoder.tokenizer.decode(best.token_ids[3:5])
    settings = decoder.settings(num_beams=3, max_new_tokens=10, stop=text, num_return_sequences=3)
    [found] = decoder.complete([PROMPT], settings)
    assert "stop" in {one.finish_reason for one in found}
    for one in found:
        ends = text in decoder.tokenizer.decode(one.token_ids)
        assert (one.finish_reason == "stop") == ends


def test_constrained_beams_all_follow_the_expression(decoder):
    settings = decoder.settings(
        num_beams=5, num_return_sequences=5, max_new_tokens=12, regex="(a|b)[0-9]{2}(cat|dog)s?"
    )
    [found] = decoder.complete([PROMPT], settings)
    texts = [decoder.tokenizer.decode(one.token_ids) for one in found]
    assert len({tuple(one.token_ids) for one in found}) == 5
    import re

    whole = [re.fullmatch("(a|b)[0-9]{2}(cat|dog)s?", text) is not None for text in texts]
    assert all(whole), texts
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def contrastive(weights, prompt, count, k, alpha):
    """Contrastive search by the paper, with full passes."""
    ids, new = list(prompt), []
    for _ in range(count):
        logits = bundles.full_pass(weights, ids)[-1]
        likely = np.exp(log_softmax(logits))
        candidates = np.argsort(-likely, kind="stable")[:k]
        context = bundles.hidden_states(weights, ids)
        best, chosen = -np.inf, 0
        for token in candidates:
            state = bundles.hidden_states(weights, [*ids, int(token)])[-1]
            cosines = context @ state / np.linalg.norm(context, axis=1) / np.linalg.norm(state)
            score = (1 - alpha) * likely[token] - alpha * cosines.max()
            if score > best:
                best, chosen = score, int(token)
        ids.append(chosen)
        new.append(chosen)
    return new


@pytest.mark.parametrize(("k", "alpha"), [(4, 0.6), (6, 0.3), (1, 0.5), (3, 1.0)])
def test_contrastive_search(decoder, k, alpha):
    weights = bundles.make_weights(decoder.vocabulary)
    settings = decoder.settings(penalty_alpha=alpha, top_k=k, max_new_tokens=12)
    prompts = [PROMPT, [12, 14, 13, 12, 12, 19], [7]]
    found = decoder.generate_ids(prompts, settings)
    assert found == [contrastive(weights, prompt, 12, k, alpha) for prompt in prompts]


def test_contrastive_search_needs_hidden_states(seq2seq, tmp_path):
    plain = Generator(bundles.decoder_bundle(tmp_path / "d"))
    with pytest.raises(BundleError, match="hidden_states=True"):
        plain.generate_ids([PROMPT], plain.settings(penalty_alpha=0.5, top_k=3))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_beams": 3, "num_beam_groups": 2}, "num_beams=3 does not divide"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences=3 of num_beams=2"),
        ({"num_return_sequences": 2}, "set do_sample=True or num_beams"),
        ({"early_stopping": "soon"}, "early_stopping='soon'"),
        ({"penalty_alpha": 0.5}, "contrastive search needs top_k"),
        ({"regex": "a", "choices": ["b"]}, "regex and choices are both given"),
        ({"logit_bias": {"a": 1}}, "logit_bias holds 'a'"),
        ({"bad_words_ids": [[-1]]}, "bad_words_ids holds -1"),
    ],
)
def test_settings_that_do_not_agree(decoder, given, message):
    with pytest.raises(InputError, match=message):
        decoder.settings(**given)


def test_contrastive_search_reads_its_last_token_too(decoder):
    full = list(range(2, 2 + bundles.MAX_LENGTH))
    settings = decoder.settings(penalty_alpha=0.5, top_k=3, max_new_tokens=1)
    assert len(decoder.generate_ids([full[1:]], settings)[0]) == 1
    with pytest.raises(InputError, match="max_length of 64"):
        decoder.generate_ids([full], settings)


def test_sequences_of_one_prompt_are_drawn_apart(decoder):
    drawn = {"do_sample": True, "seed": 1, "temperature": 2.0, "max_new_tokens": 8}
    [found] = decoder.complete([PROMPT], decoder.settings(num_return_sequences=4, **drawn))
    assert len({one.token_ids for one in found}) == 4
    [[single]] = decoder.complete([PROMPT], decoder.settings(**drawn))
    assert found[0].token_ids == single.token_ids
