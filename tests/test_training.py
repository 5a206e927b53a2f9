"""Parts of training on their own: schedules, AdamW, losses, accumulation, batches, checkpoints."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from tolerances import close

from zoo.errors import ConfigError, RunError
from zoo.training.checkpoint import (
    Progress,
    apply_state,
    collect_state,
    read_state,
    replace_file,
    write_state,
)
from zoo.training.feed import Feed, split_batch
from zoo.training.loop import Plan, is_better
from zoo.training.losses import TokenCrossentropy
from zoo.training.optimizer import AdamW, WarmupSchedule, build_optimizer
from zoo.training.recipe import TrainingRecipe
from zoo.training.strategy import make_strategy

PEAK, TOTAL, WARMUP, FINAL = 0.4, 50, 10, 0.1


def closed_form(kind: str, step: int) -> float:
    if step < WARMUP:
        return PEAK * (step + 1) / WARMUP
    passed = min((step - WARMUP) / (TOTAL - WARMUP), 1.0)
    return {
        "linear": PEAK * (FINAL + (1 - FINAL) * (1 - passed)),
        "cosine": PEAK * (FINAL + (1 - FINAL) * 0.5 * (1 + math.cos(math.pi * passed))),
        "inverse_sqrt": PEAK * math.sqrt(WARMUP / (step + 1)),
        "constant": PEAK,
    }[kind]


@pytest.mark.parametrize("kind", ["linear", "cosine", "inverse_sqrt", "constant"])
def test_schedule_equals_its_formula(kind):
    schedule = WarmupSchedule(PEAK, kind, TOTAL, WARMUP, FINAL)
    for step in (0, 1, 9, 10, 11, 30, 49, 50, 80):
        assert float(schedule(step)) == pytest.approx(closed_form(kind, step), rel=1e-5)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert float(again(17)) == float(schedule(17))


def test_schedule_without_warmup_begins_at_the_peak():
    for kind in ("linear", "cosine", "inverse_sqrt", "constant"):
        assert float(WarmupSchedule(PEAK, kind, TOTAL)(0)) == pytest.approx(PEAK)


def small_model(optimizer: keras.optimizers.Optimizer | None = None) -> keras.Model:
    keras.utils.set_random_seed(3)
    ids = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(11, 6, name="embedding")(ids)
    x = keras.layers.LayerNormalization(name="norm")(keras.layers.Dense(6, name="dense")(x))
    model = keras.Model(ids, keras.layers.Dense(5, name="logits")(x))
    model.compile(optimizer or AdamW(0.01), TokenCrossentropy())
    return model


@pytest.mark.parametrize("decay_embeddings", [False, True])
def test_weight_decay_exclusions(decay_embeddings):
    model = small_model(AdamW(0.1, weight_decay=0.5, decay_embeddings=decay_embeddings))
    before = {weight.path: weight.numpy() for weight in model.trainable_weights}
    for weight in model.trainable_weights:
        weight.assign(weight + 1.0)
    model.optimizer.build(model.trainable_variables)
    model.optimizer.apply([tf.zeros_like(weight) for weight in model.trainable_weights])
    decayed = {"dense/kernel", "logits/kernel"}
    decayed |= {"embedding/embeddings"} if decay_embeddings else set()
    for weight in model.trainable_weights:
        factor = 1 - 0.1 * 0.5 if weight.path in decayed else 1.0
        np.testing.assert_allclose(weight.numpy(), (before[weight.path] + 1) * factor, rtol=1e-6)


def token_batches(rows: int = 24, width: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    x = rng.integers(1, 11, (rows, width)).astype("int32")
    y = rng.integers(0, 5, (rows, width)).astype("int32")
    y[rng.random((rows, width)) < np.linspace(0, 0.9, rows)[:, None]] = -100
    return x, y


def test_loss_equals_its_definition():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 7, 5)).astype("float32") * 4
    labels = token_batches(4)[1]
    log_p = logits - np.log(np.exp(logits.astype("float64")).sum(-1, keepdims=True))
    chosen = np.take_along_axis(log_p, np.maximum(labels, 0)[..., None], -1)[..., 0]
    valid = labels != -100
    for smoothing in (0.0, 0.1):
        per_label = -(1 - smoothing) * chosen - smoothing * log_p.mean(-1)
        expected = per_label[valid].mean()
        found = float(TokenCrossentropy(smoothing)(labels, logits))
        assert found == pytest.approx(expected, rel=1e-5)
    keras_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100)
    assert float(TokenCrossentropy()(labels, logits)) == pytest.approx(
        float(keras_loss(labels, logits)), rel=1e-5
    )


def test_loss_of_nothing_is_zero():
    logits = np.ones((2, 3, 5), "float32")
    assert float(TokenCrossentropy()(np.full((2, 3), -100), logits)) == 0.0


def dataset_of(x: np.ndarray, y: np.ndarray, batch_size: int) -> tf.data.Dataset:
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size).repeat()
    dataset.steps_per_epoch = -(-len(x) // batch_size)
    return dataset


def test_accumulation_equals_one_big_batch():
    x, y = token_batches(22)  # the last batch is short, and labels are unevenly spread
    weights, rates = [], []
    for parts in (1, 2, 4):
        training = TrainingRecipe(
            epochs=2,
            batch_size=8,
            gradient_accumulation_steps=parts,
            optimizer={"learning_rate": 0.02, "clip_norm": 0.3, "weight_decay": 0.1},
            schedule={"kind": "cosine", "warmup_steps": 2},
        )
        feed = Feed(lambda number: dataset_of(x, y, 8), parts)
        model = small_model(build_optimizer(training, total=6))
        data = feed.dataset(tf.distribute.get_strategy())
        model.fit(data, steps_per_epoch=3 * parts, epochs=2, verbose=0, shuffle=False)
        weights.append([weight.numpy() for weight in model.trainable_weights])
        assert int(model.optimizer.iterations) == 6
        rates.append(float(model.optimizer.learning_rate))
    assert rates[0] == pytest.approx(rates[1]) == pytest.approx(rates[2])
    for other in weights[1:]:
        for ours, theirs in zip(other, weights[0], strict=True):
            close(ours, theirs, "recipe_accumulation")


@pytest.mark.parametrize(
    ("rows", "parts", "replicas"), [(7, 2, 2), (8, 1, 3), (1, 2, 2), (8, 4, 2)]
)
def test_split_batch_keeps_every_row_once(rows, parts, replicas):
    x, y = token_batches(rows)
    split = split_batch({"ids": tf.constant(x)}, tf.constant(y), parts, replicas)
    ids, labels = split[0]["ids"].numpy(), split[1].numpy()
    size = -(-rows // (parts * replicas))
    assert ids.shape == (parts, replicas, size, 7)
    flat, flat_labels = ids.reshape(-1, 7), labels.reshape(-1, 7)
    np.testing.assert_array_equal(flat[:rows], x)
    np.testing.assert_array_equal(flat_labels[:rows], y)
    assert (flat_labels[rows:] == -100).all()
    if parts > 1:
        counts = (labels != -100).reshape(parts, -1).sum(1)
        np.testing.assert_allclose(split[2].numpy()[:, 0, 0], parts * counts / counts.sum())


def test_feed_goes_on_from_any_update():
    x, y = token_batches(20)

    def make(number):
        order = np.random.default_rng(number).permutation(20)
        dataset = dataset_of(x[order], y[order], 8)
        if number == 0:  # passes 0 and 1 differ, as shuffled passes do
            second = np.random.default_rng(1).permutation(20)
            steps = dataset.steps_per_epoch
            dataset = dataset.take(3).concatenate(dataset_of(x[second], y[second], 8))
            dataset.steps_per_epoch = steps
        return dataset

    whole = list(Feed(make).dataset(tf.distribute.get_strategy()).take(6).as_numpy_iterator())
    for update in range(6):
        resumed = Feed(make).dataset(tf.distribute.get_strategy(), update)
        np.testing.assert_array_equal(next(resumed.as_numpy_iterator())[0], whole[update][0])


def test_state_round_trip(tmp_path):
    model = small_model()
    x, y = token_batches()
    model.fit(x, y, verbose=0)
    progress = Progress(round=1, update=3, history=[{"loss": 0.5}], best={"value": 1.0})
    path = tmp_path / "last" / "state.npz"
    write_state(path, collect_state(model), progress)
    state, again = read_state(path)
    assert again == progress
    other = small_model()
    other.optimizer.build(other.trainable_variables)
    apply_state(other, state, metrics=False)
    for mine, theirs in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
    del state["model/0000/embedding/embeddings"]
    state["model/0001/dense/kernel"] = np.zeros((2, 2))
    with pytest.raises(RunError, match=r"2 problems.*embeddings is missing.*shape \(2, 2\)"):
        apply_state(other, state, metrics=False)


def test_interrupted_writing_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "state.npz"
    write_state(path, {"a": np.ones(3)}, Progress(update=1))

    class Unwritable:
        dtype = np.dtype("float32")

    with pytest.raises(AttributeError):
        write_state(path, {"a": np.zeros(3), "b": Unwritable()}, Progress(update=2))
    assert read_state(path)[1].update == 1
    assert [found.name for found in tmp_path.iterdir()] == ["state.npz"]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunError, match="cannot be read"):
        read_state(path)
    with pytest.raises(RunError, match="nothing to resume"):
        read_state(tmp_path / "none.npz")


def test_replace_file_is_all_or_nothing(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        replace_file(path, lambda temporary: temporary.write_text("half") / 0 if 0 else 1 / 0)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_plan():
    plan = Plan(TrainingRecipe(epochs=3), updates_per_pass=7)
    assert (plan.updates, plan.per_round, plan.rounds) == (21, 7, 3)
    plan = Plan(TrainingRecipe(steps=100), updates_per_pass=7)
    assert (plan.updates, plan.per_round, plan.rounds) == (100, 10, 10)
    plan = Plan(TrainingRecipe(steps=10, validate_every=4), updates_per_pass=7)
    assert [plan.end(number) for number in range(plan.rounds)] == [4, 8, 10]


def test_is_better():
    assert is_better(0.1, None, "val_loss")
    assert is_better(0.1, 0.2, "val_loss")
    assert not is_better(0.1, 0.2, "val_accuracy")
    assert is_better(0.1, 0.2, "val_accuracy", mode="min")
    assert not is_better(0.19, 0.2, "val_loss", min_delta=0.05)
    assert not is_better(math.nan, 0.2, "val_loss")


@pytest.mark.parametrize(
    "text",
    ["", "{", "{}", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 3}}'],
)
def test_multi_worker_needs_a_cluster(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ConfigError, match="TF_CONFIG"):
        make_strategy("multi_worker")


def test_multi_worker_comes_first(monkeypatch):
    tf.constant(1.0)  # starts the runtime
    text = '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}'
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ConfigError, match="started already"):
        make_strategy("multi_worker")


def test_one_device_needs_no_strategy():
    for kind in ("auto", "cpu"):
        assert make_strategy(kind) is tf.distribute.get_strategy()
