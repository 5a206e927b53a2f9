"""Every tiny model through the life of a Keras model: build, call, train, save, load."""

import dataclasses
import functools
import itertools
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tiny
from tolerances import close

import zoo
from zoo.backbones.config import config_from_mapping, config_to_mapping
from zoo.tasks import TASKS

LENGTHS = [7, 4, 1, 5]


model_of = functools.cache(tiny.model)
"""For tests that leave the model as it is."""


def outputs(model: zoo.TaskModel, feeds: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in model(feeds, training=False).items()}


def compiled(name: str, **given: Any) -> tuple[zoo.TaskModel, dict[str, Any], Any]:
    """A compiled model with inputs and labels; the embedding tasks get a loss, having none.

    It runs eagerly, and with a small optimizer: to trace AdamW's update of forty weights takes ten
    times longer than to do it. `test_every_task_learns_its_batch` traces.
    """
    model = tiny.model(name)
    given = {"run_eagerly": True, "optimizer": keras.optimizers.SGD(0.1, momentum=0.9), **given}
    if not model.spec.trains:
        given = {"loss": "mse", "metrics": None, **given}
    model.compile(**given)
    feeds = tiny.inputs(model, LENGTHS)
    return model, feeds, tiny.targets(model, feeds)


# --- calls ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tiny.named())
def test_eager_and_symbolic_calls_agree_on_shapes(name) -> None:
    model = model_of(name)
    feeds = tiny.inputs(model, LENGTHS)
    found = outputs(model, feeds)
    assert list(found) == list(model.spec.outputs)
    symbolic = {key: keras.Input((None,), dtype="int32", name=key) for key in feeds}
    for key, value in model(symbolic).items():
        assert len(value.shape) == found[key].ndim
        for known, size in zip(value.shape, found[key].shape, strict=True):
            assert known in (None, size)
        assert value.dtype == "float32"
        assert found[key].dtype == np.float32
        assert np.isfinite(found[key]).all()


def test_a_task_model_is_a_layer_of_a_functional_model() -> None:
    model = tiny.model("encoder/alibi", "sentence-similarity")
    ids = keras.Input((None,), dtype="int32")
    vector = model({"input_ids": ids})["sentence_embedding"]
    whole = keras.Model(ids, keras.layers.Dense(2)(vector))
    assert whole(tiny.ragged([4, 4])[0]).shape == (2, 2)


@pytest.mark.parametrize("name", tiny.named())
def test_a_padded_row_gives_what_it_gives_alone(name) -> None:
    """Alone it has no padding, so its mask may be left out."""
    model = model_of(name)
    feeds = tiny.inputs(model, LENGTHS)
    together = outputs(model, feeds)
    for row, length in enumerate(LENGTHS[:3]):
        alone = {key: value[row : row + 1] for key, value in feeds.items()}
        for key in set(alone) - {"decoder_input_ids"}:
            alone[key] = alone[key][:, :length]
        del alone["attention_mask"]
        for key, value in outputs(model, alone).items():
            places = tuple(slice(size) for size in value.shape[1:])
            close(together[key][row : row + 1, *places], value, "padding")


def test_missing_inputs_are_named() -> None:
    with pytest.raises(ValueError, match=r"needs inputs \['decoder_input_ids'\]; got"):
        tiny.model("encoder-decoder/learned-unshared")({"input_ids": np.ones((1, 2), "int32")})


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tiny.named())
def test_a_step_trains_every_weight_and_is_saved(name, tmp_path: Path) -> None:
    model, feeds, y = compiled(name)
    before = model.get_weights()
    history = model.fit(feeds, y, batch_size=len(LENGTHS), epochs=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    if model.spec.trains:
        kept = "accuracy" if len(model.spec.outputs) == 1 else "start_logits_accuracy"
        assert 0.0 <= history[kept][0] <= 1.0
    still = {
        weight.path
        for weight, old, new in zip(model.weights, before, model.get_weights(), strict=True)
        if np.array_equal(old, new)
    }
    # Softmax does not see what all keys share, nor what all positions of an answer share.
    shared = ["key/bias", "key_norm/offset", "key_norm/norm/offset"]
    if model.task == "question-answering":
        shared.append("head/logits/bias")
    assert not {path for path in still if not path.endswith(tuple(shared))}

    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert (again.config, again.task, again.labels) == (model.config, model.task, model.labels)
    assert [w.path for w in again.weights] == [w.path for w in model.weights]
    assert_same_outputs(again, model, feeds)
    assert type(again.optimizer) is type(model.optimizer)
    assert int(again.optimizer.iterations) == 1
    for found, expected in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["encoder/grouped", "encoder-decoder/learned-unshared"])
def test_a_saved_model_goes_on_where_it_stopped(name, tmp_path: Path) -> None:
    model, feeds, y = compiled(name, optimizer="auto")
    model.train_on_batch(feeds, y)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for _ in range(2):
        losses = [m.train_on_batch(feeds, y, return_dict=True) for m in (model, again)]
        assert losses[0] == losses[1]
    assert_same_outputs(again, model, feeds)


@pytest.mark.parametrize("task", sorted(task for task in TASKS if TASKS[task].trains))
def test_every_task_learns_its_batch(task) -> None:
    kinds = {zoo.EncoderConfig: "encoder/relative", zoo.DecoderConfig: "decoder/untied"}
    name = kinds.get(TASKS[task].architectures[0], "encoder-decoder/relative-rms")
    model = tiny.model(name, task)
    model.compile(optimizer=keras.optimizers.AdamW(0.01))
    model.optimizer.build(model.trainable_variables)  # within fit, it would be traced twice
    feeds = tiny.inputs(model, LENGTHS)
    y = tiny.targets(model, feeds)
    history = model.fit(feeds, y, batch_size=4, epochs=12, verbose=0).history
    assert history["loss"][-1] < 0.6 * history["loss"][0]


@pytest.mark.parametrize("name", ["encoder/sandwich", "decoder/postnorm"])
def test_ignored_labels_count_neither_in_loss_nor_in_metric(name) -> None:
    """Both are the mean over the labels that are not -100, whatever stands at the others."""
    task = "token-classification" if name.startswith("encoder") else None
    model = tiny.model(name, task)
    model.compile()
    feeds = tiny.inputs(model, [7, 7])
    y = tiny.targets(model, feeds)
    y[0, 2:] = -100
    y[1, 5] = -100
    found = model.evaluate(feeds, y, batch_size=2, verbose=0, return_dict=True)
    logits = outputs(model, feeds)["logits"].astype("float64")
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    counted = y != -100
    picked = np.take_along_axis(logs, np.maximum(y, 0)[..., None], axis=-1)[..., 0]
    close(found["loss"], -picked[counted].mean(), "loss")
    close(found["accuracy"], (logits.argmax(-1) == y)[counted].mean(), "loss")


def test_a_batch_without_any_label_is_finite() -> None:
    model = tiny.model("encoder/alibi", "fill-mask")
    model.compile()
    feeds = tiny.inputs(model, [4, 4])
    result = model.evaluate(feeds, np.full((2, 4), -100), verbose=0, return_dict=True)
    assert np.isfinite(list(result.values())).all()


def test_question_answering_takes_a_dict_of_positions() -> None:
    model = tiny.model("encoder/alibi", "question-answering")
    model.compile()
    feeds = tiny.inputs(model, LENGTHS)
    y = tiny.targets(model, feeds)
    result = model.evaluate(feeds, y, batch_size=4, verbose=0, return_dict=True)
    found = outputs(model, feeds)
    total = 0.0
    for key, positions in y.items():
        logits = found[key].astype("float64")
        logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        total -= np.take_along_axis(logs, positions[:, None], axis=1).mean()
        right = (logits.argmax(-1) == positions).mean()
        assert result[f"{key}_accuracy"] == pytest.approx(right)
    close(result["loss"], total, "loss")


def test_sample_weights_weigh_rows() -> None:
    model = tiny.model("encoder/alibi", "text-classification")
    model.compile(metrics=None)
    feeds = tiny.inputs(model, [5, 5])
    y = np.array([0, 1])
    only_first = model.evaluate(
        feeds, y, sample_weight=np.array([2.0, 0.0]), verbose=0, return_dict=True
    )
    first = {key: value[:1] for key, value in feeds.items()}
    alone = model.evaluate(first, y[:1], verbose=0, return_dict=True)
    close(only_first["loss"], alone["loss"], "loss")


def test_dropout_acts_in_training_only() -> None:
    facts = dataclasses.replace(
        tiny.CONFIGS["encoder/alibi"], dropout=0.5, attention_dropout=0.5, token_dropout=0.5
    )
    model = zoo.TaskModel(facts, "fill-mask")
    feeds = tiny.inputs(model, [5, 5])
    first, second = (np.asarray(model(feeds, training=True)["logits"]) for _ in range(2))
    assert np.abs(first - second).max() > 0.01
    np.testing.assert_array_equal(model(feeds)["logits"], model(feeds)["logits"])


def test_compile_takes_what_it_is_given() -> None:
    model = tiny.model("encoder/alibi", "feature-extraction")
    with pytest.raises(zoo.ConfigError, match=r"has no loss of its own: give compile\(loss"):
        model.compile()
    model = tiny.model("encoder/alibi", "text-classification")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="sgd", loss=loss, metrics=["sparse_categorical_accuracy"])
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    feeds = tiny.inputs(model, LENGTHS)
    history = model.fit(feeds, tiny.targets(model, feeds), verbose=0).history
    assert set(history) == {"loss", "sparse_categorical_accuracy"}


JITTED = ["encoder/relative", "decoder/small-heads"]


@pytest.mark.parametrize("name", JITTED)
def test_xla_trains_as_well(name) -> None:
    results = []
    for jit_compile in (False, True):
        model, feeds, y = compiled(
            name,
            optimizer=keras.optimizers.SGD(0.01),
            jit_compile=jit_compile,
            run_eagerly=False,
        )
        loss = model.train_on_batch(feeds, y, return_dict=True)["loss"]
        results.append((loss, model.get_weights()))
    (plain, weights), (jitted, jitted_weights) = results
    close(jitted, plain, "jit")
    for found, expected in zip(jitted_weights, weights, strict=True):
        close(found, expected, "jit")


@pytest.mark.parametrize("name", ["encoder/alibi", "decoder/untied"])
def test_accumulated_gradients_are_those_of_one_batch(name) -> None:
    task = "text-classification" if name.startswith("encoder") else None
    results = []
    for steps in (1, 2):
        model = tiny.model(name, task)
        accumulation = {"gradient_accumulation_steps": steps} if steps > 1 else {}
        optimizer = keras.optimizers.SGD(0.1, **accumulation)
        model.compile(optimizer=optimizer, run_eagerly=True)
        feeds = tiny.inputs(model, [5, 5, 5, 5])
        y = tiny.targets(model, feeds)
        model.fit(feeds, y, batch_size=4 // steps, shuffle=False, verbose=0)
        results.append(model.get_weights())
    for found, expected in zip(*results, strict=True):
        close(found, expected, "accumulation")


@pytest.mark.parametrize(
    ("name", "dtype"), zip(tiny.named(), itertools.cycle(["bfloat16", "float16"]), strict=False)
)
def test_mixed_precision_is_near_float32(name, dtype) -> None:
    plain = model_of(name)
    model = tiny.model(name, dtype=f"mixed_{dtype}")
    model.set_weights(plain.get_weights())
    assert {w.dtype for w in model.weights} == {"float32"}
    feeds = tiny.inputs(plain, LENGTHS)
    expected = outputs(plain, feeds)
    tokens = feeds["attention_mask"] == 1
    for key, value in outputs(model, feeds).items():
        assert value.dtype == np.float32
        known = expected[key]
        if known.shape[:2] == tokens.shape and "decoder_input_ids" not in feeds:
            value, known = value[tokens], known[tokens]
        scale = np.abs(known).max()
        close(value / scale, known / scale, "outputs", dtype)


HALVES = [
    ("encoder/segments-postnorm", "bfloat16"),
    ("decoder/sandwich-softcaps", "float16"),
    ("encoder-decoder/learned-unshared", "float16"),
]


@pytest.mark.parametrize(("name", "dtype"), HALVES)
def test_mixed_precision_trains(name, dtype) -> None:
    model = tiny.model(name, dtype=f"mixed_{dtype}")
    model.compile(run_eagerly=True)
    feeds = tiny.inputs(model, LENGTHS)
    y = tiny.targets(model, feeds)
    before = model.get_weights()
    losses = model.fit(feeds, y, batch_size=4, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (dtype == "float16")
    assert all(np.isfinite(w).all() for w in model.get_weights())
    moved = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert sum(moved) > 0.9 * len(moved)


# --- saving ---------------------------------------------------------------------------------------


def assert_same_outputs(found: zoo.TaskModel, expected: zoo.TaskModel, feeds: Any) -> None:
    known = outputs(expected, feeds)
    for key, value in outputs(found, feeds).items():
        np.testing.assert_array_equal(value, known[key])


@pytest.mark.parametrize("name", tiny.named())
def test_config_survives_json(name) -> None:
    config = tiny.CONFIGS[name]
    again = config_from_mapping(json.loads(json.dumps(config_to_mapping(config))))
    assert again == config


@pytest.mark.parametrize("name", ["encoder/segments-postnorm", *tiny.named("encoder-decoder")])
def test_weights_are_loaded_into_another_model(name, tmp_path: Path) -> None:
    model, other = tiny.model(name), tiny.model(name, seed=8)
    feeds = tiny.inputs(model, LENGTHS)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    assert_same_outputs(other, model, feeds)


def test_a_saved_model_keeps_head_facts_and_dtype(tmp_path: Path) -> None:
    head = {"pooling": "max", "hidden_activation": "tanh", "dropout": 0.2}
    model = tiny.model("encoder/alibi", "text-classification", head=head, dtype="mixed_bfloat16")
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.head_facts == head
    assert again.dtype_policy.name == "mixed_bfloat16"
    assert_same_outputs(again, model, tiny.inputs(model, LENGTHS))
    assert keras.config.dtype_policy().name == "float32"


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    tiny.model("decoder/untied").save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(ValueError, match=r"untied|weights|layers|variables|shape"):
        tiny.model("decoder/postnorm").load_weights(tmp_path / "model.weights.h5")


# --- errors ---------------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"vocab_size": 0}, "vocab_size = 0: it must be positive"),
    ({"hidden_dim": -1}, "hidden_dim = -1: it must be positive"),
    ({"num_layers": 0}, "num_layers = 0: it must be positive"),
    ({"num_heads": 0}, "num_heads = 0: it must be positive"),
    ({"max_length": 0}, "max_length = 0: it must be positive"),
    ({"hidden_dim": 10, "num_heads": 4}, r"head_dim = None.*hidden_dim \(10\).*num_heads \(4\)"),
    ({"num_heads": 4, "num_kv_heads": 3}, r"num_kv_heads = 3: it must divide num_heads \(4\)"),
    ({"num_kv_heads": 0}, "num_kv_heads = 0"),
    ({"head_dim": 0}, "head_dim = 0: it must be positive"),
    ({"head_dim": -8}, "head_dim = -8: it must be positive"),
    ({"intermediate_dim": 0}, "intermediate_dim = 0: it must be positive"),
    ({"norm_epsilon": 0}, "norm_epsilon = 0.0: it must be positive"),
    ({"rotary_base": 0}, "rotary_base = 0.0: it must be positive"),
    ({"initializer_range": -0.1}, "initializer_range = -0.1: it must be positive"),
    ({"token_types": -1}, "token_types = -1: it must not be negative"),
    (
        {"parallel_residual": True, "norm_position": "post"},
        "parallel_residual = True: it needs norm_position",
    ),
    ({"rotary_fraction": 1.5}, r"rotary_fraction = 1.5: it must be in \(0, 1\]"),
    (
        {"positions": "rotary", "hidden_dim": 21, "num_heads": 3},
        "rotary_fraction = 1.0: it must turn an even number of each head's 7 features, not 7",
    ),
    ({"relative_buckets": 3}, "relative_buckets = 3: it must be at least 4"),
    ({"relative_max_distance": 16}, r"relative_max_distance = 16.*relative_buckets \(32\)"),
    ({"window": 0}, "window = 0: it must be positive"),
    ({"global_layers": (1,)}, r"global_layers = \(1,\): it needs window"),
    ({"window": 3, "global_layers": (4,)}, r"global_layers = \(4,\): it must name layers from 0"),
    ({"unturned_layers": (-1,)}, r"unturned_layers = \(-1,\): it must name layers from 0 to 3"),
    ({"shared_blocks": 5}, r"shared_blocks = 5: it must be between 1 and num_layers \(4\)"),
    ({"shared_norm": True}, "shared_norm = True: it needs parallel_residual"),
    ({"first_norm": False, "norm_position": "post"}, "first_norm = False: it can only be left out"),
    ({"norm_unit_offset": True}, 'norm_unit_offset = True: it needs norm="rms"'),
    ({"num_experts": 4}, "num_experts = 4: it needs gated=True"),
    ({"num_experts": 2, "experts_per_token": 3}, "experts_per_token = 3: it must be between 1"),
    ({"local_rotary_base": 9.0}, 'local_rotary_base = 9.0: it needs positions="rotary"'),
    ({"rotary_scaling": {"kind": "yarn"}}, "'yarn' needs original_length"),
    ({"attention_softcap": 0}, "attention_softcap = 0.0: it must be positive"),
    ({"logit_softcap": -1}, "logit_softcap = -1.0: it must be positive"),
    ({"attention_scale": 0}, "attention_scale = 0.0: it must be positive"),
    ({"dropout": 1.0}, r"dropout = 1.0: it must be in \[0, 1\)"),
    ({"attention_dropout": -0.1}, "attention_dropout = -0.1"),
    ({"token_dropout": 1.0}, "token_dropout = 1.0"),
    ({"ngram_lengths": (1,)}, r"ngram_lengths = \(1,\): it must be above 1"),
    ({"ngram_buckets": 70000}, "ngram_buckets = 70000: it must be 1 to 65536"),
    ({"pad_token_id": 50}, r"pad_token_id = 50: it must be an id below vocab_size \(50\)"),
    ({"bos_token_id": 50}, "bos_token_id = 50"),
    ({"eos_token_id": -1}, "eos_token_id = -1"),
    ({"embedding_dim": 8, "embedding_projection": False}, "embedding_projection = False: it must"),
    ({"shared_blocks": 4, "blocks_in_turn": 3}, "blocks_in_turn = 3: it must divide"),
    ({"blocks_in_turn": 2}, "blocks_in_turn = 2: it must divide"),
    ({"relative_max_distance": None}, "relative_max_distance = None: it may be None with"),
    ({"disentangled_terms": ()}, r"disentangled_terms = \(\): it must name one"),
    ({"norm": "batch"}, "norm: got 'batch', expected 'layer' or 'rms'"),
    ({"positions": "rotery"}, "positions: got 'rotery', expected 'learned'"),
    ({"activation": "swish"}, "activation: got 'swish'"),
    ({"hidden_dim": 24.5}, "hidden_dim: got 24.5"),
    ({"hiden_dim": 24}, "unknown key 'hiden_dim'; did you mean 'hidden_dim'"),
]


@pytest.mark.parametrize(("facts", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_facts_are_named(facts, message) -> None:
    with pytest.raises(zoo.ConfigError, match=message):
        zoo.DecoderConfig(**{"vocab_size": 50, **facts})


def test_wrong_facts_of_an_encoder_decoder_are_named() -> None:
    for facts in (
        {"num_decoder_layers": 0},
        {"max_target_length": 0},
        {"decoder_start_token_id": 50},
    ):
        (name,) = facts
        with pytest.raises(zoo.ConfigError, match=f"{name} = "):
            zoo.EncoderDecoderConfig(vocab_size=50, **facts)


def test_a_missing_fact_is_named() -> None:
    with pytest.raises(zoo.ConfigError, match="'vocab_size' is required and missing"):
        zoo.EncoderConfig()
    with pytest.raises(zoo.ConfigError, match=r"architecture = 'encodre': expected one of"):
        config_from_mapping({"architecture": "encodre", "vocab_size": 5})


def test_a_config_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny.CONFIGS["encoder/alibi"].hidden_dim = 5


@pytest.mark.parametrize(
    ("task", "given", "message"),
    [
        ("text-clasification", {}, "did you mean 'text-classification'"),
        ("text-generation", {}, "stands on DecoderConfig, not on EncoderConfig"),
        ("text-classification", {}, "needs labels, the names of its classes"),
        ("text-classification", {"labels": ["a", "a"]}, "labels name a class twice"),
        ("text-classification", {"labels": ["a"], "head": {"poling": "max"}}, "'pooling'"),
        ("text-classification", {"labels": ["a"], "head": {"pooling": "sum"}}, "pooling = 'sum'"),
        ("fill-mask", {"head": {"pooling": "max"}}, "head facts"),
    ],
)
def test_wrong_task_models_are_refused(task, given, message) -> None:
    with pytest.raises(zoo.ConfigError, match=message):
        zoo.TaskModel(tiny.CONFIGS["encoder/alibi"], task, **given)
