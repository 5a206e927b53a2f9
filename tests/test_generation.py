"""Generation in Keras against repeated full passes: every generating tiny model."""

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
import tiny

import zoo

NEW = 5
LENGTHS = [6, 2, 4]


@functools.cache
def model_of(name: str) -> zoo.TaskModel:
    return tiny.model(name)


def altered(name: str, **facts: Any) -> zoo.TaskModel:
    """A row's model with other facts and the same weights."""
    model = model_of(name)
    other = zoo.TaskModel(dataclasses.replace(model.config, **facts), model.task)
    other.set_weights(model.get_weights())
    return other


def best_by_full_pass(model: zoo.TaskModel, prompt: list[int], new: list[int]) -> list[int]:
    """The best token after the prompt and after each new token but the last, without a cache."""
    text = prompt + new[:-1]
    feeds = {"input_ids": text}
    if model.encoder is not None:
        start = [model.config.decoder_start_token_id]
        feeds = {"input_ids": prompt, "decoder_input_ids": start + new[:-1]}
    feeds = {key: np.array([value], "int32") for key, value in feeds.items()}
    logits = np.asarray(model(feeds)["logits"][0])
    return logits.argmax(axis=-1)[-len(new) :].tolist()


def rows_of(ids: np.ndarray, mask: np.ndarray) -> list[list[int]]:
    return [row[: line.sum()].tolist() for row, line in zip(ids, mask, strict=True)]


@pytest.mark.parametrize("name", tiny.GENERATING)
def test_greedy_tokens_are_the_best_of_full_passes(name) -> None:
    """Rows of different lengths together, so a batch also gives what its rows give alone."""
    model = model_of(name)
    ids, mask = tiny.ragged(LENGTHS)
    found = model.generate(ids, mask, max_new_tokens=NEW)
    assert found.dtype == np.int32
    assert found.shape == (3, NEW)
    for prompt, new in zip(rows_of(ids, mask), found.tolist(), strict=True):
        assert new == best_by_full_pass(model, prompt, new)


@pytest.mark.parametrize("name", ["decoder/sliding-window", "encoder-decoder/relative-rms"])
def test_a_row_alone_answers_as_in_its_batch(name) -> None:
    model = model_of(name)
    ids, mask = tiny.ragged(LENGTHS)
    together = model.generate(ids, mask, max_new_tokens=NEW).tolist()
    alone = [
        model.generate(np.array([row]), max_new_tokens=NEW)[0].tolist()
        for row in rows_of(ids, mask)
    ]
    assert together == alone


SAMPLED = "decoder/small-heads"


def test_sampling_is_reproducible() -> None:
    model = model_of(SAMPLED)
    ids, mask = tiny.ragged(LENGTHS)
    settings = {"max_new_tokens": 8, "do_sample": True, "temperature": 2.0}
    first, again, other = (
        model.generate(ids, mask, seed=seed, **settings).tolist() for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    "settings", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}], ids=str
)
def test_sampling_from_one_token_is_greedy(settings) -> None:
    model = model_of(SAMPLED)
    ids, mask = tiny.ragged(LENGTHS)
    greedy = model.generate(ids, mask, max_new_tokens=NEW)
    drawn = model.generate(ids, mask, max_new_tokens=NEW, do_sample=True, seed=3, **settings)
    np.testing.assert_array_equal(drawn, greedy)


def test_sampling_draws_from_the_distribution() -> None:
    """The first token of 1,500 equal rows, against the softmax; top_k and top_p cut it off."""
    model = model_of(SAMPLED)
    rows = 1500
    ids = np.repeat(tiny.ragged([4])[0], rows, axis=0)
    logits = np.asarray(model({"input_ids": ids[:1]})["logits"][0, -1], "float64") / 1.5
    share = np.exp(logits - logits.max())
    share /= share.sum()
    settings: dict[str, Any] = {"max_new_tokens": 1, "do_sample": True, "temperature": 1.5}
    order = np.argsort(-share)
    nucleus = int((np.cumsum(share[order]) < 0.6).sum()) + 1
    for cut, kept in (({}, len(share)), ({"top_k": 3}, 3), ({"top_p": 0.6}, nucleus)):
        drawn = model.generate(ids, seed=5, **settings, **cut)[:, 0]
        found = np.bincount(drawn, minlength=len(share)) / rows
        expected = np.zeros_like(share)
        expected[order[:kept]] = share[order[:kept]] / share[order[:kept]].sum()
        assert not found[order[kept:]].any()
        assert np.abs(found - expected).max() < 4 * np.sqrt(0.25 / rows)


@pytest.mark.parametrize("name", ["decoder/untied", "encoder-decoder/learned-unshared"])
def test_a_row_ends_with_eos_and_is_padded(name) -> None:
    ids, mask = tiny.ragged(LENGTHS)
    free = model_of(name).generate(ids, mask, max_new_tokens=NEW)
    eos = int(free[1, 1])
    model = altered(name, eos_token_id=eos, pad_token_id=36)
    found = model.generate(ids, mask, max_new_tokens=NEW)
    longest = 0
    for row, expected in zip(found, free.tolist(), strict=True):
        end = expected.index(eos) + 1 if eos in expected else NEW
        longest = max(longest, end)
        assert row[:end].tolist() == expected[:end]
        assert (row[end:] == 36).all()
    assert found.shape == (3, longest)


def test_generation_stops_when_all_rows_have_ended() -> None:
    name = "decoder/untied"
    ids, _ = tiny.ragged([4])
    free = model_of(name).generate(ids, max_new_tokens=NEW)[0].tolist()
    end = free.index(free[2]) + 1
    for facts in ({"eos_token_id": free[2]}, {"stop_token_ids": (free[2],)}):
        found = altered(name, **facts).generate(ids, max_new_tokens=NEW)
        assert found[0].tolist() == free[:end]


def test_the_longest_text_is_the_configs() -> None:
    model = model_of("decoder/learned-gelu-tanh")
    ids, _ = tiny.ragged([38])
    assert model.generate(ids, max_new_tokens=2).shape == (1, 2)
    with pytest.raises(zoo.ConfigError, match=r"38 prompt and 3 new tokens exceed.*length of 40"):
        model.generate(ids, max_new_tokens=3)
    answering = model_of("encoder-decoder/sinusoidal-postnorm")  # its targets: at most 33
    with pytest.raises(zoo.ConfigError, match=r"1 prompt and 33 new tokens exceed.*length of 33"):
        answering.generate(ids, max_new_tokens=33)


def test_wrong_use_is_refused() -> None:
    ids, _ = tiny.ragged([3])
    with pytest.raises(zoo.ConfigError, match="max_new_tokens = 0: it must be positive"):
        model_of(SAMPLED).generate(ids, max_new_tokens=0)
    with pytest.raises(zoo.ConfigError, match="task 'fill-mask' does not generate text"):
        tiny.model("encoder/alibi", "fill-mask").generate(ids)
