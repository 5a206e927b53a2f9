"""Layers against Keras' own and against their formulas; stacks in every form; cached steps."""

import dataclasses
import functools
from typing import Any

import keras
import numpy as np
import pytest
import tiny
from tolerances import close

import zoo
from zoo import ops
from zoo.backbones.transformer import Stack
from zoo.heads import ClassifierHead, EmbeddingHead, pool
from zoo.layers.attention import Attention
from zoo.layers.block import Block
from zoo.layers.feed_forward import FeedForward
from zoo.layers.linear import Embedding, Linear
from zoo.layers.norm import Norm
from zoo.layers.span import Span

WIDTH = 24


def config(**facts: Any) -> zoo.EncoderConfig:
    return zoo.EncoderConfig(**{**tiny.SMALL, "hidden_dim": WIDTH, **facts})


def built(layer: keras.layers.Layer, *shape: int | None) -> keras.layers.Layer:
    layer.build(shape or (None, None, WIDTH))
    tiny.stir(layer, 5)
    return layer


def states(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def values(layer: keras.layers.Layer) -> dict[str, np.ndarray]:
    """The layer's weights by their path below it."""
    return {
        w.path.removeprefix(f"{layer.name}/"): keras.ops.convert_to_numpy(w) for w in layer.weights
    }


# --- parts ----------------------------------------------------------------------------------------


def test_linear_is_dense() -> None:
    layer, dense = built(Linear(7, initializer_range=0.3)), keras.layers.Dense(7)
    dense.build((None, WIDTH))
    dense.set_weights(layer.get_weights())
    close(layer(states(2, 3, WIDTH)), dense(states(2, 3, WIDTH)), "keras_layer")
    assert len(built(Linear(7, use_bias=False)).weights) == 1


def test_embedding_is_that_of_keras_and_a_head() -> None:
    layer = Embedding(11, WIDTH, 0.3)
    layer.build()
    ids = np.array([[0, 3, 10]])
    table = layer.get_weights()[0]
    np.testing.assert_array_equal(layer(ids), table[ids])
    x = states(2, 3, WIDTH)
    close(layer.logits(x), x @ table.T, "primitive")


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_norm_is_that_of_keras(kind) -> None:
    layer = built(Norm(kind, 1e-4))
    theirs = {"layer": keras.layers.LayerNormalization, "rms": keras.layers.RMSNormalization}
    other = theirs[kind](epsilon=1e-4)
    other.build((None, None, WIDTH))
    other.set_weights(layer.get_weights())
    x, update = states(2, 3, WIDTH), states(2, 3, WIDTH, seed=1)
    normed, same = layer(x)
    np.testing.assert_array_equal(same, x)
    close(normed, other(x), "keras_layer")
    normed, total = layer(x, update=update)
    close(normed, other(x + update), "keras_layer")
    close(total, x + update, "primitive")
    assert len(built(Norm(kind, 1e-4, use_bias=False)).weights) == 1


@pytest.mark.parametrize("gated", [True, False])
def test_feed_forward_is_its_formula(gated) -> None:
    layer = built(FeedForward(config(gated=gated, activation="silu")))
    w = values(layer)
    x = states(2, 3, WIDTH)
    up = x @ w["up/kernel"] + w["up/bias"]
    gate = x @ w["gate/kernel"] + w["gate/bias"] if gated else up
    inner = np.asarray(keras.activations.silu(gate)) * (up if gated else 1.0)
    close(layer(x), inner @ w["down/kernel"] + w["down/bias"], "keras_layer")


def in_heads(w: dict[str, np.ndarray], name: str, head_dim: int = 8) -> list[np.ndarray]:
    """A projection's kernel and bias as Keras' attention layers keep them."""
    kernel, bias = w[f"{name}/kernel"], w[f"{name}/bias"]
    if name == "output":
        return [kernel.reshape(-1, head_dim, kernel.shape[1]), bias]
    return [kernel.reshape(kernel.shape[0], -1, head_dim), bias.reshape(-1, head_dim)]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_attention_is_that_of_keras(causal, kv_heads) -> None:
    layer = built(Attention(config(num_heads=4, num_kv_heads=kv_heads)))
    if kv_heads == 4:
        other = keras.layers.MultiHeadAttention(num_heads=4, key_dim=8)
    else:
        other = keras.layers.GroupQueryAttention(8, 4, kv_heads)
    x = states(3, 5, WIDTH)
    mask = tiny.ragged([5, 3, 1])[1]
    seen = np.repeat(mask[:, None, :] == 1, 5, axis=1)
    other(x, x)
    w = values(layer)
    other.set_weights(
        [array for name in ("query", "key", "value", "output") for array in in_heads(w, name)]
    )
    expected = np.asarray(other(x, x, attention_mask=seen, use_causal_mask=causal))
    found = np.asarray(layer(x, span=Span(mask, 5, causal))[0])
    close(found[mask == 1], expected[mask == 1], "keras_layer")


def test_cross_attention_is_that_of_keras() -> None:
    layer = built(Attention(config(num_heads=4)))
    other = keras.layers.MultiHeadAttention(num_heads=4, key_dim=8)
    x, memory = states(2, 3, WIDTH), states(2, 6, WIDTH, seed=1)
    mask = tiny.ragged([6, 2])[1]
    other(x, memory)
    w = values(layer)
    other.set_weights(
        [array for name in ("query", "key", "value", "output") for array in in_heads(w, name)]
    )
    expected = other(x, memory, attention_mask=np.repeat(mask[:, None, :] == 1, 3, axis=1))
    ready = layer.project(memory)
    assert [tuple(part.shape) for part in ready] == [(2, 4, 6, 8)] * 2
    found, present = layer(x, span=Span(mask, 6, causal=False), memory=ready)
    close(found, expected, "keras_layer")
    assert present is None


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_qk_norm_norms_each_head(kind) -> None:
    layer = built(Attention(config(qk_norm=kind)))
    w = values(layer)
    x = states(2, 4, WIDTH)

    def norm(name: str) -> np.ndarray:
        heads = (x @ w[f"{name}/kernel"] + w[f"{name}/bias"]).reshape(2, 4, 3, 8)
        if kind == "layer":
            heads = heads - heads.mean(-1, keepdims=True)
        heads = heads / np.sqrt((heads**2).mean(-1, keepdims=True) + 1e-5)
        heads = heads * w[f"{name}_norm/norm/scale"] + w.get(f"{name}_norm/norm/offset", 0.0)
        return heads.reshape(2, 4, WIDTH)

    span = Span(None, 4, causal=False)
    value = x @ w["value/kernel"] + w["value/bias"]
    facts = {"num_heads": 3, "num_kv_heads": 3, "scale": 8**-0.5}
    mixed, _ = ops.attention(norm("query"), norm("key"), value, span, **facts)
    expected = np.asarray(mixed) @ w["output/kernel"] + w["output/bias"]
    close(layer(x, span=span)[0], expected, "keras_layer")


FORMS: dict[str, dict[str, Any]] = {
    "pre": {},
    "post": {"norm_position": "post"},
    "sandwich": {"norm_position": "sandwich"},
    "parallel": {"parallel_residual": True},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cross", [False, True])
def test_blocks_add_up_as_their_form_says(form, cross) -> None:
    if form == "parallel" and cross:
        pytest.skip("no such block")
    block = built(Block(config(**FORMS[form]), 0, cross))
    x, span = states(2, 4, WIDTH), Span(None, 4, causal=True)
    memory_span = Span(None, 3, causal=False)
    memory = block.cross_attention.project(states(2, 3, WIDTH, seed=2)) if cross else None
    found, update, _ = block(x, update=None, span=span, memory=memory, memory_span=memory_span)
    found = np.asarray(found) if update is None else np.asarray(found) + np.asarray(update)

    layers = {"attention": lambda y: block.attention(y, span=span)[0]}
    if cross:
        layers["cross_attention"] = lambda y: block.cross_attention(
            y, span=memory_span, memory=memory
        )[0]
    layers["feed_forward"] = block.feed_forward
    expected, origin = x, x
    for name, layer in layers.items():
        norm = block.norms[name]
        if form == "post":
            expected = norm(expected + layer(expected))[0]
        elif form == "parallel":
            expected = expected + layer(norm(origin)[0])
        else:
            y = layer(norm(expected)[0])
            expected = expected + (block.post_norms[name](y)[0] if form == "sandwich" else y)
    close(found, expected, "keras_layer")


def test_a_window_is_that_of_its_layer() -> None:
    facts = config(window=3, global_layers=(0, 3, 6), num_layers=7)
    windows = [block.attention.window for block in stack(facts).blocks]
    assert windows == [None, 3, 3, None, 3, 3, None]
    assert [config(window=3).layer_window(i) for i in range(3)] == [3, 3, 3]


def stack(facts: zoo.EncoderConfig, causal: bool = False) -> Stack:
    return Stack(facts, causal=causal, num_layers=facts.num_layers, length=facts.max_length)


# --- pooling --------------------------------------------------------------------------------------

X = states(2, 4, 5)
MASK = np.array([[1, 1, 1, 0], [1, 0, 0, 0]], "int32")
POOLED = {
    "cls": X[:, 0],
    "mean": np.stack([X[0, :3].mean(0), X[1, 0]]),
    "max": np.stack([X[0, :3].max(0), X[1, 0]]),
    "last": np.stack([X[0, 2], X[1, 0]]),
}


@pytest.mark.parametrize("how", POOLED)
def test_pool(how) -> None:
    close(pool(X, MASK, how), POOLED[how], "primitive")
    whole = {"cls": X[:, 0], "mean": X.mean(1), "max": X.max(1), "last": X[:, -1]}[how]
    close(pool(X, None, how), whole, "primitive")


def test_pool_last_finds_the_last_token_of_left_padded_rows() -> None:
    close(pool(X, MASK[:, ::-1].copy(), "last"), X[:, -1], "primitive")


def test_heads_refuse_unknown_facts() -> None:
    with pytest.raises(zoo.ConfigError, match=r"pooling = 'man' is not known: did you mean 'm"):
        ClassifierHead(config(), 2, pooling="man")
    with pytest.raises(zoo.ConfigError, match="pooling = 'first'"):
        EmbeddingHead("first")
    with pytest.raises(zoo.ConfigError, match=r"hidden_activation = 'gelo'.*'gelu'"):
        ClassifierHead(config(), 2, hidden_activation="gelo")


def test_embedding_head_normalises() -> None:
    close(np.linalg.norm(EmbeddingHead()(X, attention_mask=MASK), axis=-1), [1, 1], "primitive")
    plain = EmbeddingHead(normalize=False)(X, attention_mask=MASK)
    close(plain, POOLED["mean"], "primitive")


# --- cached steps ---------------------------------------------------------------------------------


def first_state(states_: Any, span: Span) -> Any:
    """As `keep`: all positions."""
    return states_


class Steps:
    """A generating model's `step` with everything but the decoder's own inputs filled in.

    Attributes:
        ids: [3, 12] what the decoder reads.
        expected: [3, 12, V] the logits of a full pass over it.
    """

    def __init__(self, name: str) -> None:
        self.model = tiny.model(name)
        self.ids = np.random.default_rng(8).integers(1, 37, (3, 12)).astype("int32")
        self.memory: dict[str, Any] = {}
        full = {"input_ids": self.ids}
        if self.model.encoder is not None:
            ids, mask = tiny.ragged([9, 4, 6])
            self.memory = {"memory": self.model.encode(ids, mask)[1], "memory_mask": mask}
            full = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": self.ids}
        self.expected = np.asarray(self.model(full)["logits"])

    def __call__(self, ids: Any, mask: Any, past: Any, cache: Any, **given: Any) -> Any:
        logits, past = self.model.step(ids, mask, past, cache, **self.memory, **given)
        return np.asarray(logits), past


steps_of = functools.cache(Steps)


def counts(lengths: np.ndarray) -> np.ndarray:
    return (np.arange(lengths.max()) < lengths[:, None]).astype("int32")


@pytest.mark.parametrize("name", tiny.GENERATING)
def test_buffer_steps_reproduce_the_full_pass(name) -> None:
    """Ragged prompts, then single tokens in one buffer."""
    step = steps_of(name)
    rows, lengths = np.arange(3), np.array([5, 2, 3])
    room = np.concatenate([counts(lengths), np.zeros((3, 4), "int32")], axis=1)
    logits, past = step(step.ids[:, :5], room, None, "buffer")
    close(logits[:, 0], step.expected[rows, lengths - 1], "cached_step")
    for _ in range(3):
        new = step.ids[rows, lengths][:, None]
        lengths = lengths + 1
        logits, past = step(new, counts(lengths), past, "buffer")
        close(logits[:, 0], step.expected[rows, lengths - 1], "cached_step")
        assert past[0][0].shape[2] == room.shape[1]


@pytest.mark.parametrize("name", tiny.GENERATING)
def test_growing_steps_reproduce_the_full_pass(name) -> None:
    """Left padding in row 0, right padding and so a hole in row 1, both in row 2."""
    step = steps_of(name)
    mask = np.array([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 1, 1], [0, 1, 0, 1, 1, 0, 1]], "int32")
    at = np.maximum(mask.cumsum(axis=1) - 1, 0)
    rows = np.arange(3)[:, None]
    past, filled = None, 0
    for chunk in (5, 1, 1):
        slots = slice(filled, filled + chunk)
        filled += chunk
        ids = step.ids[rows, at[:, slots]]
        logits, past = step(ids, mask[:, :filled], past, "grow", keep=first_state)
        tokens = mask[:, slots] == 1
        close(logits[tokens], step.expected[rows, at[:, slots]][tokens], "cached_step")
        assert past[0][0].shape[2] == filled


@pytest.mark.parametrize("name", tiny.GENERATING)
@pytest.mark.parametrize("cache", ["buffer", "grow"])
def test_chunks_reproduce_the_full_pass(name, cache) -> None:
    """Several tokens at once on a filled cache, as a long prompt or a forced prefix is read."""
    step = steps_of(name)
    past, filled = None, 0
    for chunk in (3, 4, 2):
        width = 12 if past is None and cache == "buffer" else filled + chunk
        mask = np.zeros((3, width), "int32")
        mask[:, : filled + chunk] = 1
        ids = step.ids[:, filled : filled + chunk]
        logits, past = step(ids, mask, past, cache, keep=first_state)
        close(logits, step.expected[:, filled : filled + chunk], "cached_step")
        filled += chunk


def test_configs_of_the_table_use_every_fact() -> None:
    """A fact that no tiny model changes is a fact that no test covers."""
    untouched = {
        field.name
        for field in dataclasses.fields(zoo.EncoderDecoderConfig)
        if all(
            getattr(facts, field.name, field.default) in (field.default, None)
            for facts in tiny.CONFIGS.values()
        )
    }
    assert untouched == {
        "norm_epsilon",
        "attention_dropout",  # by test_models, which trains with it
        "token_dropout",  # likewise
        "pad_token_id",
        "bos_token_id",
        "eos_token_id",  # by test_generation
        "stop_token_ids",  # likewise
    }
