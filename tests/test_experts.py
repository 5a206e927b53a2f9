"""Mixtures of experts: routing and values against numpy, as exported against the reference, and
their training.
"""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from tolerances import close

import zoo
from export.lowering import PORTABLE
from zoo import ops
from zoo.layers.feed_forward import Experts, gated_product

WIDTH, INNER, COUNT, CHOSEN = 6, 5, 4, 2


def config(**facts: Any) -> zoo.DecoderConfig:
    own = {"num_experts": COUNT, "experts_per_token": CHOSEN, "expert_dim": INNER, "gated": True}
    return zoo.DecoderConfig(
        **{**tiny.SMALL, **own, "hidden_dim": WIDTH, "activation": "silu", **facts}
    )


def layer(**facts: Any) -> Experts:
    keras.utils.set_random_seed(3)
    made = Experts(config(**facts), name="experts")
    made.build((None, None, WIDTH))
    rng = np.random.default_rng(4)
    for weight in made.weights:
        weight.assign(rng.normal(0.0, 0.7, weight.shape))
    return made


def states(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max())
    return powers / powers.sum()


def expected(made: Experts, x: np.ndarray) -> np.ndarray:
    """The formula, token by token and expert by expert, in float64."""
    facts = made.config
    weight = {w.path.split("experts/", 1)[1]: np.asarray(w, "float64") for w in made.weights}
    y = np.zeros(x.shape)
    for place in np.ndindex(*x.shape[:-1]):
        token = x[place].astype("float64")
        scores = token @ weight["router/kernel"] + weight.get("router/bias", 0.0)
        best = np.argsort(-scores)[: facts.experts_per_token]
        if facts.expert_weights == "softmax_chosen":
            shares = softmax(scores[best])
        else:
            shares = softmax(scores)[best]
        if facts.expert_weights == "softmax_all_normalized":
            shares = shares / shares.sum()
        for share, e in zip(shares, best, strict=True):
            gate = token @ weight["gate_kernel"][e] + weight.get("gate_bias", np.zeros(COUNT))[e]
            up = token @ weight["up_kernel"][e] + weight.get("up_bias", np.zeros(COUNT))[e]
            if facts.gate_limit is None:
                inner = gate * sigmoid(gate) * up
            else:
                gate = np.minimum(gate, facts.gate_limit)
                up = np.clip(up, -facts.gate_limit, facts.gate_limit)
                inner = gate * sigmoid(1.702 * gate) * (up + 1.0)
            down = inner @ weight["down_kernel"][e]
            y[place] += share * (down + weight.get("down_bias", np.zeros(COUNT))[e])
    return y


FORMS: list[dict[str, Any]] = [
    {"expert_weights": "softmax_all"},
    {"expert_weights": "softmax_all_normalized"},
    {"expert_weights": "softmax_chosen"},
    {"expert_bias": True, "gate_limit": 0.8, "expert_weights": "softmax_chosen"},
    {"experts_per_token": 1},
    {"experts_per_token": COUNT},
]


@pytest.mark.parametrize("facts", FORMS, ids=str)
def test_experts_compute_their_formula(facts) -> None:
    made, x = layer(**facts), states(2, 7, WIDTH)
    close(made(x), expected(made, x), "experts")


@pytest.mark.parametrize("facts", FORMS, ids=str)
@pytest.mark.parametrize("shape", [(2, 7), (1, 1)], ids=str)
def test_the_exported_form_computes_the_same(facts, shape) -> None:
    """One token alone leaves experts that nobody chose."""
    made, x = layer(**facts), states(*shape, WIDTH, seed=1)
    with ops.lowered({"experts": PORTABLE["experts"]}):
        found = tf.function(made)(x)
    close(found, expected(made, x), "experts")


def test_each_token_has_the_shares_of_its_own_experts() -> None:
    made = layer()
    shares = keras.ops.convert_to_numpy(made.shares(states(3, 50, WIDTH)))
    assert ((shares > 0).sum(-1) == CHOSEN).all()
    np.testing.assert_allclose(shares.sum(-1), 1.0, atol=1e-6)
    assert (shares > 0).any((0, 1)).all()


def test_equal_scores_choose_no_more_experts() -> None:
    """A token whose scores are all equal still has `experts_per_token` experts."""
    made = layer(expert_weights="softmax_all")
    shares = keras.ops.convert_to_numpy(made.shares(np.zeros((1, 1, WIDTH), "float32")))
    assert ((shares > 0).sum(-1) == CHOSEN).all()
    np.testing.assert_allclose(shares[shares > 0], 1.0 / COUNT, atol=1e-6)


def test_gradients_reach_the_router_and_the_chosen_experts_alone() -> None:
    made, x = layer(), tf.constant(states(1, 1, WIDTH))
    chosen = keras.ops.convert_to_numpy(made.shares(x))[0, 0] > 0
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(made(x) ** 2)
    variables = made.trainable_variables
    gradients = dict(
        zip(
            (v.path for v in variables),
            tape.gradient(loss, [v.value for v in variables]),
            strict=True,
        )
    )
    kernels = [value.numpy() for path, value in gradients.items() if path.endswith("_kernel")]
    assert len(kernels) == 3
    for gradient in kernels:
        assert (np.abs(gradient).max((1, 2)) > 0).tolist() == chosen.tolist()
    router = gradients["experts/router/kernel"].numpy()
    assert np.abs(router[:, chosen]).min() > 0
    kernel = made.router.kernel
    step = np.zeros(kernel.shape, "float32")
    step[2, np.flatnonzero(chosen)[0]] = 1e-2
    before = keras.ops.convert_to_numpy(kernel)
    losses = []
    for sign in (1, -1):
        kernel.assign(before + sign * step)
        losses.append(float(tf.reduce_sum(made(x) ** 2)))
    slope = (losses[0] - losses[1]) / 2e-2
    assert slope == pytest.approx(router[2, np.flatnonzero(chosen)[0]], rel=1e-2)


def test_a_mixture_learns() -> None:
    """Tokens of two kinds need two maps: the loss falls and several experts stay in use."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(64, 4, WIDTH)).astype("float32")
    y = np.where(x[..., :1] > 0, 2.0 * x[..., ::-1], -x).astype("float32")
    keras.utils.set_random_seed(6)
    facts = config(experts_per_token=1, initializer_range=0.4, expert_weights="softmax_all")
    made = Experts(facts)
    model = keras.Sequential([keras.Input((4, WIDTH)), made])
    model.compile(keras.optimizers.Adam(0.02), "mse")
    history = model.fit(x, y, epochs=40, batch_size=64, verbose=0).history["loss"]
    assert history[-1] < 0.6 * history[0]
    shares = keras.ops.convert_to_numpy(made.shares(x))
    assert ((shares > 0).any((0, 1))).sum() >= 2


def test_gated_product_is_plain_without_a_limit() -> None:
    gate, up = states(3, INNER), states(3, INNER, seed=1)
    found = gated_product(config())(gate, up)
    close(found, gate * sigmoid(gate) * up, "primitive")
