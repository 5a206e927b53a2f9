"""What settings do to scores: every rule against plain loops."""

import numpy as np
import pytest

from serve.decoding.processing import Processors
from serve.decoding.sampling import log_softmax
from serve.decoding.settings import GenerationSettings
from serve.errors import InputError

SIZE = 12
RNG = np.random.default_rng(0)


def row():
    scores = RNG.normal(size=SIZE).astype(np.float32) * 3
    scores[RNG.random(SIZE) < 0.1] = -np.inf
    return scores


def processed(prompt, generated, encoder_ids=None, most=20, scores=None, **given):
    rules = Processors(GenerationSettings(**given), prompt, SIZE, encoder_ids, most)
    scores = row() if scores is None else scores
    return rules(scores.copy(), generated)


def banned(tokens, source, size):
    """What would complete an n-gram of `source`, looked for one by one."""
    if len(tokens) < size - 1:
        return set()
    end = tokens[len(tokens) + 1 - size :] if size > 1 else []
    grams = [source[at : at + size] for at in range(len(source) - size + 1)]
    return {gram[-1] for gram in grams if gram[:-1] == end}


def reference(scores, prompt, new, encoder_ids, most, settings):
    """All rules, one token at a time, in the order of Hugging Face's `generate`."""
    scores, tokens = scores.astype(np.float64), prompt + new

    def ban(ids):
        for token in ids:
            if token < SIZE:
                scores[token] = -np.inf

    for token, value in settings.logit_bias.items():
        scores[token] += value
    for token in set(tokens):
        if token < SIZE:
            penalty = settings.repetition_penalty
            scores[token] *= penalty if scores[token] < 0 else 1 / penalty
    for token in set(new):
        scores[token] -= settings.presence_penalty
        scores[token] -= settings.frequency_penalty * new.count(token)
    if settings.no_repeat_ngram_size:
        ban(banned(tokens, tokens, settings.no_repeat_ngram_size))
    if settings.encoder_no_repeat_ngram_size:
        source = prompt if encoder_ids is None else encoder_ids
        ban(banned(tokens, source, settings.encoder_no_repeat_ngram_size))
    for word in settings.bad_words_ids:
        *begin, last = word
        if len(word) == 1 and last in settings.eos_token_id:
            continue
        if len(begin) <= len(tokens) and tokens[len(tokens) - len(begin) :] == begin:
            ban([last])
    least = settings.min_new_tokens
    if len(new) < least if least else len(tokens) < settings.min_length:
        ban(settings.eos_token_id)
    if settings.ignore_eos:
        ban(settings.eos_token_id)
    for token, wanted in (
        (settings.forced_bos_token_id, len(tokens) == 1),
        (settings.forced_eos_token_id, len(new) == most - 1),
    ):
        if token is not None and wanted:
            scores[:] = -np.inf
            scores[token] = 0
    ban(settings.suppress_tokens)
    first = settings.forced_bos_token_id is not None and len(prompt) == 1
    if len(new) == first:
        ban(settings.begin_suppress_tokens)
    if settings.renormalize_logits:
        scores = log_softmax(scores)
    return scores


def ids(most):
    return tuple(int(token) for token in RNG.integers(0, SIZE, RNG.integers(1, most + 1)))


def random_settings():
    choices = {
        "logit_bias": lambda: dict.fromkeys(ids(3), float(RNG.normal())),
        "repetition_penalty": lambda: float(RNG.uniform(0.5, 2)),
        "presence_penalty": lambda: float(RNG.normal()),
        "frequency_penalty": lambda: float(RNG.normal()),
        "no_repeat_ngram_size": lambda: int(RNG.integers(1, 5)),
        "encoder_no_repeat_ngram_size": lambda: int(RNG.integers(1, 5)),
        "bad_words_ids": lambda: [ids(3) for _ in range(8)],
        "min_length": lambda: int(RNG.integers(1, 12)),
        "min_new_tokens": lambda: int(RNG.integers(1, 8)),
        "ignore_eos": lambda: True,
        "forced_bos_token_id": lambda: ids(1)[0],
        "forced_eos_token_id": lambda: ids(1)[0],
        "suppress_tokens": lambda: ids(3),
        "begin_suppress_tokens": lambda: ids(3),
        "renormalize_logits": lambda: True,
    }
    given = {name: make() for name, make in choices.items() if RNG.random() < 0.3}
    return GenerationSettings(eos_token_id=(1, 2, SIZE + 5), **given)


def test_random_settings_equal_the_reference():
    changed = 0
    for _ in range(3000):
        settings = random_settings()
        prompt = [int(token) for token in RNG.integers(0, SIZE + 2, RNG.integers(1, 9))]
        new = [int(token) for token in RNG.integers(0, SIZE, RNG.integers(0, 9))]
        encoder_ids = [int(token) for token in RNG.integers(0, SIZE, 9)]
        encoder_ids = encoder_ids if RNG.random() < 0.5 else None
        most, scores = len(new) + int(RNG.integers(1, 4)), row()
        rules = Processors(settings, prompt, SIZE, encoder_ids, most)
        expected = reference(scores, prompt, new, encoder_ids, most, settings)
        found = rules(scores.copy(), new)
        assert found.dtype == np.float32
        assert np.allclose(found, expected, atol=1e-4), settings
        assert np.array_equal(found == -np.inf, expected == -np.inf), settings
        changed += not np.array_equal(found, scores)
        if rules.idle:
            assert np.array_equal(expected, scores)
    assert changed > 2000


def test_idle_rules_pass_the_row_on():
    for given in (
        {}, {"ignore_eos": True}, {"min_new_tokens": 3},
        {"bad_words_ids": [[7]], "eos_token_id": 7},
        {"do_sample": True, "top_k": 3}, {"num_beams": 3, "length_penalty": 2.0},
    ):  # fmt: skip
        rules = Processors(GenerationSettings(**given), [1, 2], SIZE, None, 5)
        scores = row()
        assert rules.idle
        assert rules(scores, [3]) is scores
    assert not Processors(GenerationSettings(no_repeat_ngram_size=2), [1], SIZE, None, 5).idle


def test_one_set_of_rules_serves_many_sequences():
    rules = Processors(
        GenerationSettings(no_repeat_ngram_size=2, frequency_penalty=1.0), [3, 4], SIZE, None, 9
    )
    zeros = np.zeros(SIZE, np.float32)
    first = rules(zeros.copy(), [5, 3])
    assert np.flatnonzero(first).tolist() == [3, 4, 5]  # 3 4 stands there; 5 and 3 were written
    assert first[4] == -np.inf
    rules(zeros.copy(), [3, 3, 3])
    assert np.array_equal(rules(zeros.copy(), [5, 3]), first)


def test_generated_may_be_an_array():
    from array import array

    given = {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "scores": row()}
    expected = processed([1, 2, 3], [4, 2, 3], **given)
    for kind in (np.array([4, 2, 3]), array("q", [4, 2, 3]), (4, 2, 3)):
        assert np.array_equal(processed([1, 2, 3], kind, **given), expected)


def test_a_forced_first_token_is_for_answers_that_begin_with_it():
    forced = processed([2], [], forced_bos_token_id=9)
    assert np.flatnonzero(forced == 0).tolist() == [9]
    scores = row()
    assert np.array_equal(processed([2, 9], [], scores=scores, forced_bos_token_id=9), scores)
    assert np.array_equal(processed([2], [9], scores=scores, forced_bos_token_id=9), scores)


@pytest.mark.parametrize(
    "given",
    [
        {"logit_bias": {SIZE: 1.0}}, {"bad_words_ids": [[1, SIZE]]}, {"suppress_tokens": [SIZE]},
        {"begin_suppress_tokens": [SIZE]}, {"forced_bos_token_id": SIZE},
        {"forced_eos_token_id": SIZE},
    ],
)  # fmt: skip
def test_ids_outside_the_vocabulary_are_named(given):
    with pytest.raises(InputError, match=f"{next(iter(given))}: token 12 is outside"):
        Processors(GenerationSettings(**given), [1], SIZE, None, 5)


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(InputError, match="a row of no tokens"):
        GenerationSettings(bad_words_ids=[[1], []])
    with pytest.raises(InputError, match="logit_bias"):
        GenerationSettings(logit_bias={1: float("inf")})
    with pytest.raises(InputError, match="renormalize_logits"):
        GenerationSettings(renormalize_logits=1)


def test_a_long_history_bans_only_what_repeats():
    """4,000 tokens of a vocabulary of 50,000: the bans are those of plain loops."""
    rng = np.random.default_rng(3)
    tokens = rng.integers(0, 40, 4000).tolist()
    rules = Processors(
        GenerationSettings(no_repeat_ngram_size=3), tokens[:2000], 50_000, None, 5000
    )
    found = rules(np.zeros(50_000, np.float32), tokens[2000:])
    assert set(np.flatnonzero(found == -np.inf).tolist()) == banned(tokens, tokens, 3) != set()
