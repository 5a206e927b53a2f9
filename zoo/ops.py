"""The primitives every model is made of, each looked up in one table so that an export can lower
it.

A primitive is a function on tensors, written once in `keras.ops` (the reference, which trains on
any Keras backend). While an export traces a model it enters `lowered({...})`; the primitives named
there are then computed by the export's own functions, which emit the operators of the target
runtime. Layers call primitives and never know the difference.
"""

import contextlib
import functools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np
from keras import ops

# A text of one token is no mistake.
warnings.filterwarnings("ignore", message="You are using a softmax over axis")

REFERENCE: dict[str, Callable[..., Any]] = {}
_lowered: ContextVar[Mapping[str, Callable[..., Any]]] = ContextVar("lowered", default={})  # noqa: B039


def primitive(function: Callable[..., Any]) -> Callable[..., Any]:
    """Registers `function` as the reference of the primitive that bears its name."""
    name = function.__name__
    REFERENCE[name] = function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return _lowered.get().get(name, function)(*args, **kwargs)

    return call


@contextlib.contextmanager
def lowered(table: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Computes the primitives named in `table` by its functions for the length of the context."""
    unknown = sorted(set(table) - set(REFERENCE))
    if unknown:
        raise KeyError(f"no primitive is called {unknown}; there are {sorted(REFERENCE)}")
    token = _lowered.set(table)
    try:
        yield
    finally:
        _lowered.reset(token)


@primitive
def constant(name: str, value: np.ndarray) -> Any:
    """A fixed table, such as rotary angles; `name` is what an exported graph calls it."""
    return ops.convert_to_tensor(value)


@primitive
def reshape(x: Any, sizes: tuple[int, ...]) -> Any:
    """`x` with other axes; a size of 0 is that of the axis in the same place, -1 what is left.

    So no size that only a run knows is ever computed with.
    """
    known = ops.shape(x)
    return ops.reshape(x, tuple(size or known[i] for i, size in enumerate(sizes)))


@primitive
def linear(x: Any, kernel: Any, bias: Any = None, transpose: bool = False) -> Any:
    """The linear map y = x W + b, with x [..., in] and W [in, out], or [out, in] where `transpose`
    (tied embeddings).
    """
    if transpose:
        kernel = ops.transpose(kernel)
    y = ops.matmul(x, kernel)
    return y if bias is None else y + bias


@primitive
def embed(ids: Any, table: Any) -> Any:
    """Rows of `table` [V, D] for `ids` [...]: [..., D]."""
    return ops.take(table, ids, axis=0)


def _in_float32(function: Callable[..., Any]) -> Callable[..., Any]:
    """Computes in float32 whatever the compute type, as norms and softmax must be."""

    @functools.wraps(function)
    def call(x: Any, *args: Any, **kwargs: Any) -> Any:
        dtype = keras.backend.standardize_dtype(x.dtype)
        return ops.cast(function(ops.cast(x, "float32"), *args, **kwargs), dtype)

    return call


@primitive
@_in_float32
def layer_norm(x: Any, scale: Any, offset: Any = None, epsilon: float = 1e-5) -> Any:
    """(x - mean) / sqrt(variance + epsilon) * scale + offset, last axis (Ba et al., 2016)."""
    centred = x - ops.mean(x, axis=-1, keepdims=True)
    variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
    y = centred * ops.rsqrt(variance + epsilon) * ops.cast(scale, "float32")
    return y if offset is None else y + ops.cast(offset, "float32")


@primitive
@_in_float32
def rms_norm(x: Any, scale: Any, epsilon: float = 1e-6) -> Any:
    """The norm x / sqrt(mean(x²) + epsilon) * scale, last axis (Zhang and Sennrich, 2019)."""
    inverse = ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + epsilon)
    return x * inverse * ops.cast(scale, "float32")


@primitive
def add_layer_norm(
    x: Any, update: Any, scale: Any, offset: Any = None, epsilon: float = 1e-5
) -> tuple[Any, Any]:
    """Adds `update` to the residual stream `x`: (layer_norm(x + update), x + update)."""
    x = x + update
    return layer_norm(x, scale, offset, epsilon), x


@primitive
def add_rms_norm(x: Any, update: Any, scale: Any, epsilon: float = 1e-6) -> tuple[Any, Any]:
    """Adds `update` to the residual stream `x`: (rms_norm(x + update), x + update)."""
    x = x + update
    return rms_norm(x, scale, epsilon), x


@primitive
def gelu(x: Any) -> Any:
    """Exact GELU, x Φ(x) (Hendrycks and Gimpel, 2016)."""
    return 0.5 * x * (1.0 + ops.erf(x * (1.0 / math.sqrt(2.0))))


@primitive
def gelu_tanh(x: Any) -> Any:
    """The tanh approximation of GELU, as in GPT-2."""
    return 0.5 * x * (1.0 + ops.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))


@primitive
def gelu_sigmoid(x: Any) -> Any:
    """The sigmoid approximation of GELU, x sigmoid(1.702 x)."""
    return x * ops.sigmoid(1.702 * x)


@primitive
def silu(x: Any) -> Any:
    """SiLU, x sigmoid(x), also called swish."""
    return x * ops.sigmoid(x)


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "gelu": gelu,
    "gelu_sigmoid": gelu_sigmoid,
    "gelu_tanh": gelu_tanh,
    "relu": ops.relu,
    "relu_squared": lambda x: ops.square(ops.relu(x)),
    "silu": silu,
    "tanh": ops.tanh,
}


@primitive
def rotary(
    x: Any, positions: Any, cos: Any, sin: Any, num_heads: int, interleaved: bool = False
) -> Any:
    """Rotary position embedding (Su et al., 2021) of the first 2R features of each head.

    Args:
        x: [B, S, num_heads * head_dim].
        positions: [B or 1, S] integers.
        cos: [max_length, R] cosines of the angles; sin likewise.
        sin: see `cos`.
        num_heads: Heads that share the last axis of `x`.
        interleaved: Pairs are neighbours (2i, 2i + 1); otherwise halves (i, i + R).
    """
    width = x.shape[-1]
    head_dim, half = width // num_heads, cos.shape[-1]
    x = reshape(x, (0, 0, num_heads, head_dim))
    cos = ops.cast(ops.expand_dims(embed(positions, cos), 2), x.dtype)  # (B or 1, S, 1, R)
    sin = ops.cast(ops.expand_dims(embed(positions, sin), 2), x.dtype)
    turned, rest = x[..., : 2 * half], x[..., 2 * half :]
    if interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
    else:
        a, b = turned[..., :half], turned[..., half:]
    first, second = a * cos - b * sin, b * cos + a * sin
    if interleaved:
        turned = reshape(ops.stack([first, second], axis=-1), (0, 0, num_heads, 2 * half))
    else:
        turned = ops.concatenate([first, second], axis=-1)
    x = turned if 2 * half == head_dim else ops.concatenate([turned, rest], axis=-1)
    return reshape(x, (0, 0, width))


@primitive
def attention(
    query: Any,
    key: Any,
    value: Any,
    span: Any,
    *,
    num_heads: int,
    num_kv_heads: int,
    scale: float,
    past: tuple[Any, Any] | None = None,
    angles: tuple[Any, Any] | None = None,
    interleaved: bool = False,
    bias: Any = None,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Any = None,
    dropout: Callable[[Any], Any] | None = None,
) -> tuple[Any, tuple[Any, Any] | None]:
    """Scaled dot-product attention with an explicit key/value cache (Vaswani et al., 2017; Ainslie
    et al., 2023).

    Args:
        query: [B, S, num_heads * head_dim].
        key: [B, S, num_kv_heads * head_dim], or keys that are ready: [B, num_kv_heads, T,
            head_dim].
        value: As `key`.
        span: `zoo.layers.span.Span`: which positions the call covers and which keys each may see.
        num_heads: Query heads.
        num_kv_heads: Key and value heads; a divisor of `num_heads`.
        scale: Factor on the scores, usually head_dim ** -0.5.
        past: Cached keys and values [B, num_kv_heads, P, head_dim] each, laid out as `span.cache`
            says.
        angles: (cos, sin) tables of rotary positions, which turn query and key; see `rotary`.
        interleaved: See `rotary`.
        bias: Added to the scores: [B or 1, num_heads, S, T].
        window: How many positions back a query sees (causal), or to each side (bidirectional).
        softcap: Scores become softcap * tanh(scores / softcap) (Gemma 2).
        sinks: [num_heads] scores that take a share of each head's softmax (gpt-oss).
        dropout: Applied to the weights while training.

    Returns:
        ([B, S, num_heads * head_dim], (keys, values) as they are to be cached, or None without a
        cache).
    """
    width = query.shape[-1]
    head_dim = width // num_heads
    ready = len(key.shape) == 4
    if angles is not None:
        cos, sin = angles
        query = rotary(query, span.positions, cos, sin, num_heads, interleaved)
        key = rotary(key, span.positions, cos, sin, num_kv_heads, interleaved)
    query = split_heads(query, num_heads)  # (B, H, S, D)
    if not ready:
        key = split_heads(key, num_kv_heads)
        value = split_heads(value, num_kv_heads)
    present = None
    if span.cache is not None and not ready:
        present = (span.update(past and past[0], key), span.update(past and past[1], value))
        key, value = span.visible_part(present[0]), span.visible_part(present[1])
    # Heads that share a key stand behind each other in one matrix product, so nothing is repeated.
    shared = num_kv_heads != num_heads
    query = query * scale
    if shared:
        query = reshape(query, (0, num_kv_heads, -1, head_dim))
    scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))
    if shared:
        scores = reshape(scores, (0, num_heads, -1, 0))
    scores = ops.cast(scores, "float32")
    if bias is not None:
        scores = scores + ops.cast(bias, "float32")
    if softcap is not None:
        scores = softcap * ops.tanh(scores / softcap)
    allowed = span.allowed(window)
    if allowed is not None:
        scores = ops.where(allowed, scores, -1e9)
    if sinks is not None:
        sinks = ops.reshape(ops.cast(sinks, "float32"), (1, num_heads, 1, 1))
        scores = ops.concatenate([scores, ops.zeros_like(scores[..., :1]) + sinks], axis=-1)
    weights = ops.cast(ops.softmax(scores, axis=-1), query.dtype)
    if sinks is not None:
        weights = weights[..., :-1]
    if dropout is not None:
        weights = dropout(weights)
    if shared:
        weights = reshape(weights, (0, num_kv_heads, -1, 0))
    mixed = ops.matmul(weights, value)
    if shared:
        mixed = reshape(mixed, (0, num_heads, -1, head_dim))
    return reshape(ops.transpose(mixed, (0, 2, 1, 3)), (0, 0, width)), present


def split_heads(x: Any, num_heads: int) -> Any:
    """[B, S, H * D] -> [B, H, S, D]."""
    x = reshape(x, (0, 0, num_heads, x.shape[-1] // num_heads))
    return ops.transpose(x, (0, 2, 1, 3))


@primitive
def shifted(scores: Any, length: Any) -> Any:
    """[B, H, S, 2 S - 1] -> [B, H, S, S]: row i, column j takes column S - 1 + j - i (Dai et al.,
    2019); `length` is S.
    """
    flat = reshape(ops.pad(scores, ((0, 0), (0, 0), (0, 0), (0, 1))), (0, 0, -1))
    flat = flat[:, :, length - 1 : -1]
    return ops.reshape(flat, (-1, scores.shape[1], length, 2 * length - 1))[..., :length]


@primitive
def experts(
    x: Any,
    shares: Any,
    kernels: tuple[Any, Any, Any],
    biases: tuple[Any, Any, Any] | None,
    combine: Callable[[Any, Any], Any],
) -> Any:
    """Gated feed-forward layers, mixed by token: sum over e of shares_e * expert_e(x) (Shazeer et
    al., 2017).

    The reference computes every expert for every token, which compiles to static shapes; a lowering
    computes the chosen ones.

    Args:
        x: [B, T, D].
        shares: [B, T, E], 0 for experts that are not chosen.
        kernels: gate [E, D, F], up [E, D, F] and down [E, F, D].
        biases: gate [E, F], up [E, F] and down [E, D], or None.
        combine: (gate, up) -> what goes down, such as silu(gate) * up.
    """
    gate, up, down = (ops.cast(kernel, x.dtype) for kernel in kernels)
    inner_gate, inner_up = (ops.einsum("btd,edf->btef", x, kernel) for kernel in (gate, up))
    if biases is not None:
        inner_gate = inner_gate + ops.cast(biases[0], x.dtype)
        inner_up = inner_up + ops.cast(biases[1], x.dtype)
    shares = ops.cast(shares, x.dtype)
    y = ops.einsum("btef,efd->btd", combine(inner_gate, inner_up) * shares[..., None], down)
    return y if biases is None else y + ops.matmul(shares, ops.cast(biases[2], x.dtype))
