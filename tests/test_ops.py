"""The primitives against numpy written from their papers, and against Keras' own layers."""

import math
from typing import Any

import keras
import numpy as np
import pytest
from tolerances import close

from zoo import ops
from zoo.layers.positions import (
    AlibiBias,
    RelativeBias,
    RoundedAlibiBias,
    alibi_slopes,
    rotary_rates,
    sinusoids,
)
from zoo.layers.span import Span


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype("float32")


# --- simple primitives ----------------------------------------------------------------------------


def test_linear_is_that_of_dense(rng) -> None:
    x, kernel, bias = normal(rng, 2, 3, 5), normal(rng, 5, 7), normal(rng, 7)
    dense = keras.layers.Dense(7)
    dense.build((None, 5))
    dense.set_weights([kernel, bias])
    close(ops.linear(x, kernel, bias), dense(x), "keras_layer")
    close(ops.linear(x, kernel), x @ kernel, "primitive")
    close(ops.linear(x, kernel.T, bias, transpose=True), x @ kernel + bias, "primitive")


def test_embed_is_that_of_embedding(rng) -> None:
    table, ids = normal(rng, 11, 4), rng.integers(0, 11, (2, 3))
    layer = keras.layers.Embedding(11, 4)
    layer.build()
    layer.set_weights([table])
    np.testing.assert_array_equal(ops.embed(ids, table), layer(ids))


def test_layer_norm_is_that_of_keras(rng) -> None:
    x, scale, offset = 3 + 2 * normal(rng, 2, 3, 8), normal(rng, 8), normal(rng, 8)
    layer = keras.layers.LayerNormalization(epsilon=1e-3)
    layer.build((None, None, 8))
    layer.set_weights([scale, offset])
    close(ops.layer_norm(x, scale, offset, 1e-3), layer(x), "keras_layer")
    wide = x.astype("float64")
    centred = wide - wide.mean(-1, keepdims=True)
    expected = centred / np.sqrt(wide.var(-1, keepdims=True) + 1e-3) * scale
    close(ops.layer_norm(x, scale, epsilon=1e-3), expected, "primitive")


def test_rms_norm_is_that_of_keras(rng) -> None:
    x, scale = 3 + 2 * normal(rng, 2, 3, 8), normal(rng, 8)
    layer = keras.layers.RMSNormalization(epsilon=1e-3)
    layer.build((None, None, 8))
    layer.set_weights([scale])
    close(ops.rms_norm(x, scale, 1e-3), layer(x), "keras_layer")
    wide = x.astype("float64")
    expected = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-3) * scale
    close(ops.rms_norm(x, scale, 1e-3), expected, "primitive")


@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
def test_adding_norms_return_norm_and_sum(norm, rng) -> None:
    x, update, scale = normal(rng, 2, 3, 8), normal(rng, 2, 3, 8), normal(rng, 8)
    normed, total = getattr(ops, f"add_{norm}")(x, update, scale, epsilon=1e-4)
    close(total, x + update, "primitive")
    expected = getattr(ops, norm)(x + update, scale, epsilon=1e-4)
    close(normed, expected, "primitive")


@pytest.mark.parametrize("norm", [ops.layer_norm, ops.rms_norm])
def test_norms_compute_in_float32(norm) -> None:
    """Squares of 300 are beyond float16."""
    x = keras.ops.convert_to_tensor(np.array([[300.0, -300.0, 300.0, -300.0]], "float16"))
    y = norm(x, np.ones(4, "float32"))
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    np.testing.assert_allclose(np.asarray(y), [[1, -1, 1, -1]], atol=1e-3)


ACTIVATIONS = {
    "gelu": lambda x: keras.activations.gelu(x, approximate=False),
    "gelu_tanh": lambda x: keras.activations.gelu(x, approximate=True),
    "gelu_sigmoid": lambda x: x / (1 + np.exp(-1.702 * x)),
    "relu": keras.activations.relu,
    "relu_squared": lambda x: np.maximum(x, 0) ** 2,
    "silu": keras.activations.silu,
    "tanh": keras.activations.tanh,
}


@pytest.mark.parametrize("name", sorted(ops.ACTIVATIONS))
def test_activations_are_those_of_keras(name) -> None:
    x = np.linspace(-6, 6, 41, dtype="float32")
    close(ops.ACTIVATIONS[name](x), ACTIVATIONS[name](x), "keras_layer")


# --- the table ------------------------------------------------------------------------------------


def test_lowered_replaces_and_restores() -> None:
    x = np.ones((1, 2), "float32")
    with ops.lowered({"gelu": lambda x: "outer", "silu": lambda x: "silu"}):
        assert ops.gelu(x) == "outer"
        with ops.lowered({"gelu": lambda x: "inner"}):
            assert ops.gelu(x) == "inner"
        assert ops.gelu(x) == "outer"
        assert ops.ACTIVATIONS["silu"](x) == "silu"
        assert ops.REFERENCE["gelu"](x).shape == (1, 2)
    close(ops.gelu(x), [[0.8413447] * 2], "primitive")


def test_lowered_restores_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), ops.lowered({"gelu": lambda x: 1 / 0}):
        ops.gelu(0.0)
    assert float(ops.gelu(np.float32(0.0))) == 0.0


def test_lowered_refuses_unknown_names() -> None:
    unknown = ops.lowered({"gleu": lambda x: x})
    with pytest.raises(KeyError, match=r"no primitive is called \['gleu'\].*gelu"), unknown:
        pass


def test_every_target_lowers_known_primitives_only() -> None:
    from export.lowering import TARGETS

    for table in TARGETS.values():
        assert set(table) <= set(ops.REFERENCE)


# --- positions ------------------------------------------------------------------------------------


def test_sinusoids_are_sines_then_cosines() -> None:
    table = sinusoids(50, 6)
    for position in (0, 1, 49):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            assert table[position, i] == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[position, 3 + i] == pytest.approx(math.cos(angle), abs=1e-6)
    assert sinusoids(4, 7).shape == (4, 7)


@pytest.mark.parametrize(
    ("heads", "published"),
    [
        (8, [2.0 ** -(i + 1) for i in range(8)]),
        (12, [2.0 ** -(i + 1) for i in range(8)] + [2.0 ** -(i + 0.5) for i in range(4)]),
        (1, [2.0**-8]),
    ],
)
def test_alibi_slopes_are_the_published_ones(heads, published) -> None:
    np.testing.assert_allclose(alibi_slopes(heads), published, rtol=1e-6)


def test_alibi_bias_falls_with_distance() -> None:
    bias = np.asarray(AlibiBias(8)(span=Span(None, 5, causal=False)))
    assert bias.shape == (1, 8, 5, 5)
    for i, j in np.ndindex(5, 5):
        np.testing.assert_allclose(bias[0, :, i, j], -abs(i - j) * alibi_slopes(8), rtol=1e-6)


def test_rounded_alibi_is_computed_in_bfloat16() -> None:
    def rounded(x):
        return keras.ops.cast(x, "bfloat16")

    found = RoundedAlibiBias(12, 600, 0.5)(span=Span(None, 600, causal=True))
    slopes = rounded(alibi_slopes(12))[:, None]
    expected = slopes * rounded(np.arange(600, dtype="float32"))[None, :]
    expected = np.asarray(keras.ops.cast(expected, "float32")) * 0.5
    assert found.shape == (1, 12, 600, 600)
    np.testing.assert_array_equal(np.asarray(found)[0, :, 17], expected)
    exact = 0.5 * alibi_slopes(12)[:, None] * np.arange(600)
    assert np.abs(expected - exact).max() > 0.1


def t5_bucket(distance: int, bidirectional: bool, buckets: int, furthest: int) -> int:
    """The bucket of T5's paper and code, one distance at a time, in double precision."""
    first = 0
    if bidirectional:
        buckets //= 2
        first = buckets if distance < 0 else 0
        distance = abs(distance)
    distance = max(distance, 0)
    exact = buckets // 2
    if distance < exact:
        return first + distance
    far = math.log(distance / exact) / math.log(furthest / exact) * (buckets - exact)
    return first + min(buckets - 1, exact + int(far + 1e-9))


@pytest.mark.parametrize(("buckets", "furthest"), [(32, 128), (64, 256), (8, 12), (6, 9)])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_relative_buckets_are_those_of_t5(buckets, furthest, bidirectional) -> None:
    distances = np.arange(-300, 301, dtype="int32")
    layer = RelativeBias(2, buckets, furthest, bidirectional)
    expected = [t5_bucket(int(d), bidirectional, buckets, furthest) for d in distances]
    np.testing.assert_array_equal(layer.bucket(distances), expected)


def test_relative_bias_looks_its_buckets_up(rng) -> None:
    layer = RelativeBias(3, 8, 12, bidirectional=True)
    layer.build()
    table = normal(rng, 8, 3)
    layer.set_weights([table])
    bias = np.asarray(layer(span=Span(None, 6, causal=False)))
    assert bias.shape == (1, 3, 6, 6)
    for i, j in np.ndindex(6, 6):
        np.testing.assert_array_equal(bias[0, :, i, j], table[t5_bucket(i - j, True, 8, 12)])


def turned(x: np.ndarray, position: int, base: float, interleaved: bool) -> np.ndarray:
    """One head's features [2R] turned as complex numbers: e^(i position base^(-2k / 2R)) each."""
    half = len(x) // 2
    x = x.astype("float64")
    pairs = x[0::2] + 1j * x[1::2] if interleaved else x[:half] + 1j * x[half:]
    pairs = pairs * np.exp(1j * position * base ** (-np.arange(half) / half))
    if interleaved:
        return np.stack([pairs.real, pairs.imag], axis=-1).reshape(-1)
    return np.concatenate([pairs.real, pairs.imag])


def rotary_tables(length: int, features: int, base: float) -> tuple[np.ndarray, np.ndarray]:
    angles = np.outer(np.arange(length), rotary_rates(features, base))
    return np.cos(angles).astype("float32"), np.sin(angles).astype("float32")


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("features", [8, 4])
def test_rotary_turns_pairs_as_complex_numbers(interleaved, features, rng) -> None:
    heads, head_dim, base = 3, 8, 100.0
    x = normal(rng, 2, 4, heads * head_dim)
    positions = np.array([[0, 1, 2, 3], [5, 6, 7, 9]])
    cos, sin = rotary_tables(10, features, base)
    found = np.asarray(ops.rotary(x, positions, cos, sin, heads, interleaved))
    for b, s, h in np.ndindex(2, 4, heads):
        head = slice(h * head_dim, (h + 1) * head_dim)
        expected = x[b, s, head].astype("float64")
        expected[:features] = turned(expected[:features], positions[b, s], base, interleaved)
        close(found[b, s, head], expected, "primitive")


# --- attention ------------------------------------------------------------------------------------


def attention_by_loops(query, key, value, allowed, scale, bias=None, softcap=None) -> np.ndarray:
    """Query [B, S, H, D] over key and value [B, T, G, D], one query and head at a time."""
    batch, length, heads, width = query.shape
    out = np.zeros((batch, length, heads, width))
    for b, i, h in np.ndindex(batch, length, heads):
        group = h * key.shape[2] // heads
        scores = key[b, :, group].astype("float64") @ query[b, i, h].astype("float64") * scale
        if bias is not None:
            scores = scores + bias[min(b, len(bias) - 1), h, i]
        if softcap is not None:
            scores = softcap * np.tanh(scores / softcap)
        seen = allowed[b, i]
        weights = np.exp(scores[seen] - scores[seen].max())
        out[b, i, h] = weights / weights.sum() @ value[b, seen, group]
    return out.reshape(batch, length, heads * width)


CASES: dict[str, dict[str, Any]] = {
    "bidirectional": {"causal": False},
    "causal": {},
    "padded": {"causal": False, "lengths": [4, 6, 1]},
    "causal-padded": {"lengths": [4, 6, 1]},
    "window": {"window": 2},
    "window-bidirectional": {"window": 2, "causal": False, "lengths": [5, 6, 2]},
    "grouped": {"num_heads": 6, "num_kv_heads": 2},
    "one-key-head": {"num_heads": 4, "num_kv_heads": 1},
    "softcap": {"softcap": 1.5},
    "alibi": {"bias": "alibi"},
    "relative": {"bias": "relative", "causal": False},
    "softcap-relative": {"bias": "relative", "softcap": 2.0},
    "rotary": {"rotary": 8},
    "rotary-interleaved": {"rotary": 8, "interleaved": True},
    "rotary-partial": {"rotary": 4, "causal": False, "num_heads": 4, "num_kv_heads": 2},
    "everything": {
        "rotary": 4,
        "interleaved": True,
        "bias": "alibi",
        "softcap": 2.0,
        "window": 3,
        "num_heads": 4,
        "num_kv_heads": 2,
        "lengths": [6, 3, 5],
    },
}


def mask_of(lengths: list[int], total: int) -> np.ndarray:
    return (np.arange(total) < np.array(lengths)[:, None]).astype("int32")


def facts_of(case: dict[str, Any], span: Span) -> dict[str, Any]:
    """The keyword arguments of `ops.attention` for a case."""
    heads = case.get("num_heads", 3)
    facts: dict[str, Any] = {
        "num_heads": heads,
        "num_kv_heads": case.get("num_kv_heads", heads),
        "scale": 8**-0.5,
        "window": case.get("window"),
        "softcap": case.get("softcap"),
        "interleaved": case.get("interleaved", False),
    }
    if "rotary" in case:
        facts["angles"] = rotary_tables(16, case["rotary"], 50.0)
    if case.get("bias") == "alibi":
        facts["bias"] = AlibiBias(heads)(span=span)
    elif case.get("bias") == "relative":
        layer = RelativeBias(heads, 8, 12, bidirectional=case.get("causal") is False)
        layer.build()
        layer.set_weights([np.random.default_rng(1).normal(size=(8, heads)).astype("float32")])
        facts["bias"] = layer(span=span)
    return facts


def qkv(case: dict[str, Any], rows: int, length: int) -> list[np.ndarray]:
    heads = case.get("num_heads", 3)
    rng = np.random.default_rng(11)
    widths = (heads * 8, case.get("num_kv_heads", heads) * 8, case.get("num_kv_heads", heads) * 8)
    return [normal(rng, rows, length, width) for width in widths]


def expected_of(case: dict[str, Any], query, key, value, lengths: list[int]) -> np.ndarray:
    """The case by loops, on texts of `lengths`, without any of the code under test but the bias."""
    rows, length, _ = query.shape
    split = [x.reshape(rows, length, -1, 8) for x in (query, key, value)]
    if "rotary" in case:
        for x in split[:2]:
            for b, s, h in np.ndindex(*x.shape[:3]):
                part = x[b, s, h, : case["rotary"]]
                part[:] = turned(part, s, 50.0, case.get("interleaved", False))
    i, j = np.arange(length)[:, None], np.arange(length)[None, :]
    seen = j <= i if case.get("causal", True) else np.full((length, length), True)
    if "window" in case:
        reach = case["window"]
        seen = seen & (i - j < reach if case.get("causal", True) else abs(i - j) <= reach)
    allowed = seen[None] & (np.arange(length) < np.array(lengths)[:, None])[:, None, :]
    allowed |= ~allowed.any(axis=-1, keepdims=True)  # rows of padding, not compared
    bias = facts_of(case, Span(None, length, case.get("causal", True))).get("bias")
    bias = None if bias is None else np.asarray(bias)
    return attention_by_loops(*split, allowed, 8**-0.5, bias, case.get("softcap"))


@pytest.mark.parametrize("name", CASES)
def test_attention_is_the_formula(name) -> None:
    case = CASES[name]
    lengths = case.get("lengths", [6, 6, 6])
    query, key, value = qkv(case, 3, 6)
    mask = mask_of(lengths, 6) if "lengths" in case else None
    span = Span(mask, 6, case.get("causal", True))
    found, present = ops.attention(query, key, value, span, **facts_of(case, span))
    assert present is None
    tokens = mask_of(lengths, 6) == 1
    expected = expected_of(case, query.copy(), key.copy(), value.copy(), lengths)
    close(np.asarray(found)[tokens], expected[tokens], "primitive")


CAUSAL = [name for name, case in CASES.items() if case.get("causal", True)]


@pytest.mark.parametrize("name", CAUSAL)
def test_buffer_cache_gives_the_formula(name) -> None:
    """Ragged prompts, then single tokens: rows stand at lengths of their own in one buffer."""
    case, total = CASES[name], 6
    query, key, value = qkv(case, 3, total)
    expected = expected_of(case, query.copy(), key.copy(), value.copy(), [total] * 3)
    kv_heads = key.shape[-1] // 8
    starts = np.array([2, 4, 1])
    past = tuple(np.zeros((3, kv_heads, 9, 8), "float32") for _ in range(2))
    mask = mask_of(list(starts), 4)
    span = Span(mask, 4, True, "buffer")
    new = [x[:, :4] for x in (query, key, value)]
    found, past = ops.attention(*new, span, past=past, **facts_of(case, span))
    tokens = mask == 1
    close(np.asarray(found)[tokens], expected[:, :4][tokens], "primitive")
    rows = np.arange(3)
    for step in range(2):
        at = starts + step
        span = Span(mask_of(list(at + 1), int(at.max()) + 1), 1, True, "buffer")
        new = [x[rows, at][:, None] for x in (query, key, value)]
        found, past = ops.attention(*new, span, past=past, **facts_of(case, span))
        close(np.asarray(found)[:, 0], expected[rows, at], "primitive")
        assert past[0].shape == (3, kv_heads, 9, 8)
        np.testing.assert_array_equal(np.asarray(past[0])[0, :, at[0] + 1 + 2 :], 0.0)


@pytest.mark.parametrize("name", CAUSAL)
def test_buffer_cache_takes_several_tokens_at_once(name) -> None:
    case, total = CASES[name], 6
    query, key, value = qkv(case, 3, total)
    expected = expected_of(case, query.copy(), key.copy(), value.copy(), [total] * 3)
    past, filled = None, 0
    for chunk in (2, 3, 1):
        # The first call makes the buffer, with room for the width of its mask.
        width = total + 2 if past is None else filled + chunk
        span = Span(mask_of([filled + chunk] * 3, width), chunk, True, "buffer")
        new = [x[:, filled : filled + chunk] for x in (query, key, value)]
        found, past = ops.attention(*new, span, past=past, **facts_of(case, span))
        close(found, expected[:, filled : filled + chunk], "primitive")
        filled += chunk
    assert past[0].shape[2] == total + 2


@pytest.mark.parametrize("name", CAUSAL)
def test_growing_cache_gives_the_formula_whatever_side_is_padded(name) -> None:
    """Row 0 is padded left, row 1 right (a hole once tokens follow), row 2 in the middle."""
    case, total = CASES[name], 6
    query, key, value = qkv(case, 3, total)
    expected = expected_of(case, query.copy(), key.copy(), value.copy(), [total] * 3)
    mask = np.array([[0, 0, 1, 1, 1, 1], [1, 1, 0, 0, 1, 1], [1, 0, 1, 1, 0, 1]], "int32")
    at = np.maximum(mask.cumsum(axis=1) - 1, 0)
    rows = np.arange(3)[:, None]
    placed = [x[rows, at] for x in (query, key, value)]  # token of each slot; padding repeats one
    past, filled = None, 0
    for chunk in (4, 1, 1):
        span = Span(mask[:, : filled + chunk], chunk, True, "grow")
        new = [x[:, filled : filled + chunk] for x in placed]
        found, past = ops.attention(*new, span, past=past, **facts_of(case, span))
        slots = slice(filled, filled + chunk)
        tokens = mask[:, slots] == 1
        wanted = expected[rows, at[:, slots]]
        close(np.asarray(found)[tokens], wanted[tokens], "primitive")
        filled += chunk
        assert past[0].shape[2] == filled


def test_attention_to_keys_that_are_ready(rng) -> None:
    """Cross attention: [B, heads, T, D] keys, all of them seen but padding."""
    query, memory = normal(rng, 2, 3, 16), [normal(rng, 2, 5, 2, 8) for _ in range(2)]
    mask = mask_of([5, 2], 5)
    ready = [x.transpose(0, 2, 1, 3) for x in memory]
    found, present = ops.attention(
        query, *ready, Span(mask, 5, causal=False), num_heads=2, num_kv_heads=2, scale=0.4
    )
    assert present is None
    allowed = np.repeat((mask == 1)[:, None, :], 3, axis=1)
    expected = attention_by_loops(query.reshape(2, 3, 2, 8), *memory, allowed, 0.4)
    close(found, expected, "primitive")


def test_attention_dropout_acts_on_the_weights(rng) -> None:
    query, key, value = (normal(rng, 1, 4, 16) for _ in range(3))
    span = Span(None, 4, causal=False)
    seen = []

    def dropout(weights: Any) -> Any:
        seen.append(np.asarray(weights))
        return weights * 2

    facts = {"num_heads": 2, "num_kv_heads": 2, "scale": 0.35}
    doubled, _ = ops.attention(query, key, value, span, dropout=dropout, **facts)
    plain, _ = ops.attention(query, key, value, span, **facts)
    close(doubled, 2 * np.asarray(plain), "primitive")
    assert seen[0].shape == (1, 2, 4, 4)
    np.testing.assert_allclose(seen[0].sum(-1), 1.0, atol=1e-6)


def test_a_row_of_padding_alone_stays_finite(rng) -> None:
    query, key, value = (normal(rng, 2, 3, 16) for _ in range(3))
    mask = np.array([[0, 0, 0], [1, 1, 1]], "int32")
    facts = {"num_heads": 2, "num_kv_heads": 2, "scale": 0.35}
    for causal in (True, False):
        found, _ = ops.attention(query, key, value, Span(mask, 3, causal), **facts)
        assert np.isfinite(np.asarray(found)).all()


def test_a_cache_needs_a_mask() -> None:
    with pytest.raises(ValueError, match="needs attention_mask"):
        Span(None, 3, causal=True, cache="buffer")
