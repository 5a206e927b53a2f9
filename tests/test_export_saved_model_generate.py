"""SavedModels that generate: tokens as Keras' own loop writes them, drawn or the likeliest."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from tolerances import close

import export
import zoo
from export.generation import drawn
from export.graphs import forward_graph
from export.tolerances import TOLERANCES
from zoo.generation import _choose

NAMES = ["decoder/sandwich-softcaps", "encoder-decoder/relative-rms"]
LENGTHS = [5, 11, 1]


def ending(name: str) -> zoo.TaskModel:
    """A model whose rows end at different steps: its end token is one that it writes."""
    plain = tiny.model(name)
    ids, mask = tiny.ragged(LENGTHS, seed=5)
    written = plain.generate(ids, mask, max_new_tokens=12)
    last = max(written[0], key=lambda token: int(np.argmax(written[0] == token)))
    config = dataclasses.replace(plain.config, eos_token_id=int(last), stop_token_ids=(36,))
    keras.utils.set_random_seed(7)
    model = zoo.TaskModel(config, plain.task)
    tiny.stir(model, 7)
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(model, signatures) of a row; made once."""
    made = {}

    def get(name: str):
        if name not in made:
            model = ending(name)
            folder = tmp_path_factory.mktemp("generate") / "model"
            report = export.to_saved_model(model, folder)
            assert report["tokens"] > 0
            made[name] = model, tf.saved_model.load(str(folder))
        return made[name]

    return get


def prompt(ids, mask, most: int) -> dict:
    feeds = {"input_ids": ids, "attention_mask": mask, "max_new_tokens": most}
    return {name: tf.constant(value, "int64") for name, value in feeds.items()}


@pytest.mark.parametrize("name", NAMES)
def test_the_likeliest_tokens_are_those_of_keras(name, saved) -> None:
    model, loaded = saved(name)
    call = loaded.signatures["generate"]
    ended = 0
    for lengths, most, seed in ((LENGTHS, 12, 5), ([1], 1, 6), ([7, 2], 20, 7)):
        ids, mask = tiny.ragged(lengths, seed=seed)
        found = call(**prompt(ids, mask, most))["output_ids"]
        expected = model.generate(ids, mask, max_new_tokens=most)
        assert found.dtype == tf.int64
        np.testing.assert_array_equal(found, expected)
        ended += int((expected == model.config.eos_token_id).any())
    assert ended  # at least one row met its end token


@pytest.mark.parametrize("name", NAMES)
def test_sampling_keeps_to_its_settings(name, saved) -> None:
    _, loaded = saved(name)
    ids, mask = tiny.ragged(LENGTHS, seed=8)

    def sample(temperature: float, top_k: int, top_p: float, seed: int) -> np.ndarray:
        settings = {"temperature": temperature, "top_p": top_p}
        feeds = {key: tf.constant(value, "float32") for key, value in settings.items()}
        feeds |= {"top_k": tf.constant(top_k, "int64"), "seed": tf.constant(seed, "int64")}
        call = loaded.signatures["sample"]
        return call(**prompt(ids, mask, 6), **feeds)["output_ids"].numpy()

    likeliest = loaded.signatures["generate"](**prompt(ids, mask, 6))["output_ids"]
    np.testing.assert_array_equal(sample(1.0, 1, 1.0, 3), likeliest)
    np.testing.assert_array_equal(sample(1.0, 0, 1e-6, 3), likeliest)
    np.testing.assert_array_equal(sample(1e-4, 0, 1.0, 3), likeliest)
    first = sample(1.5, 0, 1.0, 3)
    np.testing.assert_array_equal(first, sample(1.5, 0, 1.0, 3))
    assert any((first[:, 0] != sample(1.5, 0, 1.0, seed)[:, 0]).any() for seed in range(4, 9))


class Draws:
    """Stands for a numpy generator: hands out given numbers."""

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers = numbers

    def random(self, shape: tuple) -> np.ndarray:
        assert shape == self.numbers.shape
        return self.numbers


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.7, 5, 1.0), (1.3, 0, 0.8), (0.9, 7, 0.6), (1.0, 500, 0.01)],
)
def test_draws_are_those_of_keras_given_the_same_numbers(temperature, top_k, top_p) -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, (400, 61)).astype("float32")
    numbers = rng.random((400, 1))
    expected = _choose(
        logits, Draws(numbers), temperature, top_k or None, top_p if top_p < 1 else None
    )
    settings = (tf.constant(temperature), tf.constant(top_k, "int64"), tf.constant(top_p))
    found = drawn(tf.constant(logits), tf.constant(numbers), *settings).numpy()
    assert (found == expected).mean() > 0.99  # sums may round to the other side of a number
    assert len(set(found.tolist())) > 3


@pytest.mark.parametrize("most", [0, 39])
def test_what_does_not_fit_is_refused(most, saved) -> None:
    _, loaded = saved(NAMES[0])
    ids, mask = tiny.ragged([4])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"max_new_tokens|exceed the model"):
        loaded.signatures["generate"](**prompt(ids, mask, most))


@pytest.mark.parametrize(
    ("name", "precision"),
    [("encoder/rotary-gated-rms", "float16"), ("decoder/small-heads", "bfloat16")],
)
def test_half_precision(name, precision, tmp_path) -> None:
    model = tiny.model(name)
    report = export.to_saved_model(model, tmp_path / "model", precision=precision)
    assert 1e-5 < report["largest"] <= TOLERANCES[precision]  # it is not float32 in disguise
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    feeds = tiny.inputs(model, [9, 2, 5], seed=50)
    call = loaded.signatures["serving_default"]
    found = call(**{key: tf.constant(value, "int64") for key, value in feeds.items()})
    for key, value in forward_graph(model).call(feeds).items():
        assert found[key].dtype == tf.float32
        peak = float(np.abs(value).max())
        close(found[key] / peak, np.asarray(value) / peak, "outputs", precision)
    half = sum(path.stat().st_size for path in (tmp_path / "model/variables").iterdir())
    export.to_saved_model(model, tmp_path / "whole", verify=False)
    whole = sum(path.stat().st_size for path in (tmp_path / "whole/variables").iterdir())
    assert half < 0.75 * whole
    if model.generates:
        ids, mask = tiny.ragged([3, 6], seed=4)
        found = loaded.signatures["generate"](**prompt(ids, mask, 5))["output_ids"]
        assert found.shape == (2, 5)
        step = loaded.signatures["step"].structured_input_signature[1]
        caches = {spec.dtype.name for key, spec in step.items() if key.startswith("past")}
        assert caches == {precision}
