"""Lowering: which ONNX operator each primitive becomes, for each target.

A lowered primitive either computes with plain TensorFlow operators that convert one to one, or
emits a placeholder, a `PyFunc` whose token names the ONNX operator, its attributes and which
optional inputs are given. tf2onnx hands every placeholder to `convert_placeholder`, which puts the
named operator in its place.
"""

import json
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np
import tensorflow as tf

from zoo import ops

MICROSOFT = "com.microsoft"
UNUSED = "unused_output"
CONSTANT = "Constant"

constants: ContextVar[dict[str, np.ndarray]] = ContextVar("constants")
"""Tables that the trace under way has met, by name."""


shared: ContextVar[dict[tuple[Any, ...], Any]] = ContextVar("shared")
"""What the trace under way has computed already and its layers share, by what it is."""


def emit(
    op_type: str,
    inputs: Sequence[tf.Tensor | None],
    outputs: Sequence[tuple[str, Sequence[int | None]] | None],
    domain: str = MICROSOFT,
    **attributes: Any,
) -> list[tf.Tensor]:
    """Emits a placeholder for an ONNX operator.

    Args:
        op_type: The operator.
        inputs: None stands for an optional input that is not given.
        outputs: (type, shape) of each; None for an optional output that is not wanted.
        domain: The operator's domain; "" is ONNX' own.
        **attributes: The operator's attributes.
    """
    token = {
        "domain": domain,
        "op_type": op_type,
        "attributes": attributes,
        "inputs": [value is not None for value in inputs],
        "outputs": [value is not None for value in outputs],
    }
    wanted = [value for value in outputs if value is not None]
    results = tf.raw_ops.PyFunc(
        input=[tf.convert_to_tensor(value) for value in inputs if value is not None],
        token=json.dumps(token),
        Tout=[tf.as_dtype(dtype) for dtype, _ in wanted],
    )
    # set_shape would be lost on the way to tf2onnx; EnsureShape is not, and becomes nothing.
    return [
        tf.ensure_shape(result, shape) for result, (_, shape) in zip(results, wanted, strict=True)
    ]


def convert_placeholder(ctx: Any, node: Any, name: str, args: Any) -> None:
    """tf2onnx custom-op handler: puts the operator that a placeholder names in its place."""
    token = json.loads(node.get_attr_str("token"))
    given, produced = iter(list(node.input)), iter(list(node.output))
    dtypes, shapes = iter(node.output_dtypes), iter(node.output_shapes)
    ctx.remove_node(node.name)
    if token["op_type"] == CONSTANT:
        table = token["attributes"]["name"]
        value = ctx.make_const(f"{table}_{node.name.replace('/', '_')}", constants.get()[table])
        ctx.make_node("Identity", [value.output[0]], outputs=[next(produced)], name=node.name)
        return
    inputs = [next(given) if present else "" for present in token["inputs"]]
    while inputs and not inputs[-1]:  # ONNX Runtime's fusions crash on a last input that is empty
        inputs.pop()
    outputs, output_dtypes, output_shapes = [], [], []
    for i, wanted in enumerate(token["outputs"]):
        outputs.append(next(produced) if wanted else f"{UNUSED}_{node.name}_{i}")
        output_dtypes.append(next(dtypes) if wanted else 1)
        output_shapes.append(next(shapes) if wanted else None)
    ctx.make_node(
        token["op_type"],
        inputs,
        attr=token["attributes"],
        outputs=outputs,
        name=node.name,
        domain=token["domain"],
        shapes=output_shapes,
        dtypes=output_dtypes,
    )


def once(compute: Callable[[], tf.Tensor], *key: Any) -> tf.Tensor:
    """What `compute` gives, or gave for the same key before."""
    known = shared.get()
    if key not in known:
        known[key] = compute()
    return known[key]


def _cast(value: Any, dtype: Any) -> tf.Tensor:
    value = tf.convert_to_tensor(value)
    if value.dtype == dtype:
        return value
    return once(lambda: tf.cast(value, dtype), "cast", value.ref(), tf.as_dtype(dtype))


def _static(x: tf.Tensor) -> list[int | None]:
    return x.shape.as_list()


# --- what both targets share ---


def _constant(name: str, value: np.ndarray) -> tf.Tensor:
    known = constants.get()
    if name in known and not np.array_equal(known[name], value):
        name = f"{name}_{len(known)}"
    known[name] = value
    dtype = tf.as_dtype(value.dtype).name
    return emit(CONSTANT, [], [(dtype, value.shape)], domain="", name=name)[0]


def _reshape(x: Any, sizes: Sequence[int]) -> tf.Tensor:
    known = _static(x)
    shape = [
        known[i] if size == 0 else None if size == -1 else size for i, size in enumerate(sizes)
    ]
    wanted = _constant(f"sizes_{'_'.join(map(str, sizes))}", np.array(sizes, "int64"))
    return emit("Reshape", [x, wanted], [(x.dtype.name, shape)], domain="")[0]


def _shifted(scores: Any, length: Any) -> tf.Tensor:
    length = tf.convert_to_tensor(length)

    def vector(name: str, compute: Callable[[], Any]) -> tf.Tensor:
        return once(lambda: tf.cast(compute(), "int64"), name, length.ref())

    def cut(x: tf.Tensor, start: Any, end: Any, axis: int, shape: list[int | None]) -> tf.Tensor:
        axes = _constant(f"axis_{axis}", np.array([axis], "int64"))
        return emit("Slice", [x, start, end, axes], [(x.dtype.name, shape)], domain="")[0]

    batch, heads, size, _ = _static(scores)
    flat = _reshape(tf.pad(scores, [[0, 0], [0, 0], [0, 0], [0, 1]]), (0, 0, -1))
    start = vector("before", lambda: tf.reshape(length - 1, [1]))
    flat = cut(flat, start, _constant("last", np.array([-1], "int64")), 2, [batch, heads, None])
    sizes = vector("rows", lambda: tf.stack([0, 0, length, -1]))
    whole = (scores.dtype.name, [batch, heads, size, None])
    rows = emit("Reshape", [flat, sizes], [whole], domain="")[0]
    end = vector("length", lambda: tf.reshape(length, [1]))
    first = _constant("first", np.array([0], "int64"))
    return cut(rows, first, end, 3, [batch, heads, size, size])


def _linear(x: Any, kernel: Any, bias: Any = None, transpose: bool = False) -> tf.Tensor:
    y = tf.matmul(x, tf.convert_to_tensor(kernel), transpose_b=transpose)
    return y if bias is None else y + tf.convert_to_tensor(bias)


def _embed(ids: Any, table: Any) -> tf.Tensor:
    return tf.gather(tf.convert_to_tensor(table), ids)


def _like(value: Any, x: tf.Tensor) -> tf.Tensor | None:
    """`value` in the type of `x`: operators take all their tensors in one."""
    return None if value is None else _cast(value, x.dtype)


def _layer_norm(x: Any, scale: Any, offset: Any = None, epsilon: float = 1e-5) -> tf.Tensor:
    return emit(  # which computes in float32 by itself
        "LayerNormalization",
        [x, _like(scale, x), _like(offset, x)],
        [(x.dtype.name, _static(x))],
        domain="",
        axis=-1,
        epsilon=epsilon,
    )[0]


def _rms_norm(x: Any, scale: Any, epsilon: float = 1e-6) -> tf.Tensor:
    wide = tf.cast(x, "float32")
    mean = tf.reduce_mean(tf.pow(wide, 2.0), axis=-1, keepdims=True)
    return tf.cast(tf.cast(scale, "float32") * (wide / tf.sqrt(mean + epsilon)), x.dtype)


def _experts(x: Any, shares: Any, kernels: Any, biases: Any, combine: Any) -> tf.Tensor:
    """A loop over the experts that were chosen at all: each computes its own tokens, found by where
    their shares are not 0. The graph does not grow with the number of experts.
    """
    width = x.shape[-1]
    rows = tf.reshape(x, [-1, width])
    shares = tf.reshape(tf.cast(shares, "float32"), [-1, shares.shape[-1]])
    kernels = [tf.convert_to_tensor(kernel) for kernel in kernels]
    biases = None if biases is None else [tf.convert_to_tensor(bias) for bias in biases]
    chosen = tf.reshape(tf.where(tf.reduce_max(shares, axis=0) > 0), [-1])
    count = tf.size(chosen, "int64")

    def add(step: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        expert = tf.gather(chosen, step)
        share = tf.gather(shares, expert, axis=1)
        mine = tf.where(share > 0)  # (N, 1)
        given = tf.gather_nd(rows, mine)

        def linear(values: tf.Tensor, which: int) -> tf.Tensor:
            y = tf.matmul(values, tf.gather(kernels[which], expert))
            return y if biases is None else y + tf.gather(biases[which], expert)

        y = linear(combine(linear(given, 0), linear(given, 1)), 2)
        y = tf.cast(y, "float32") * tf.expand_dims(tf.gather_nd(share, mine), 1)
        return step + 1, tf.tensor_scatter_nd_add(total, mine, y)

    _, total = tf.while_loop(
        lambda step, _: step < count,
        add,
        (
            tf.constant(0, "int64"),
            tf.zeros_like(rows, "float32"),
        ),  # runtimes add up in no half precision
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, width])),
    )
    return tf.reshape(tf.cast(total, x.dtype), tf.shape(x))


PORTABLE: dict[str, Callable[..., Any]] = {
    "constant": _constant,
    "reshape": _reshape,
    "shifted": _shifted,
    "linear": _linear,
    "embed": _embed,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "experts": _experts,
}
"""Standard operators of opset 17 and later, for any runtime."""

# --- onnxruntime ---


def _fused_linear(x: Any, kernel: Any, bias: Any = None, transpose: bool = False) -> tf.Tensor:
    kernel = tf.convert_to_tensor(kernel)
    if transpose:
        shape = [*_static(x)[:-1], _static(kernel)[0]]
        product = emit("FusedMatMul", [x, kernel], [(x.dtype.name, shape)], transB=1)[0]
    else:
        product = tf.matmul(x, kernel)
    if bias is None:
        return product
    bias = tf.convert_to_tensor(bias)
    y = product + bias
    shared.get()["addends", y.ref()] = product, bias  # what reads y may add the bias itself
    return y


def _activation(
    op_type: str, with_bias: str | None = None, **attributes: Any
) -> Callable[[Any], tf.Tensor]:
    """One operator; `with_bias` is the one that adds a linear map's bias as well."""

    def call(x: Any) -> tf.Tensor:
        result = [(x.dtype.name, _static(x))]
        addends = shared.get().get(("addends", x.ref()))
        if with_bias is None or addends is None:
            return emit(op_type, [x], result, **attributes)[0]
        return emit(with_bias, addends, result, **attributes)[0]

    return call


def _add_rms_norm(
    x: Any, update: Any, scale: Any, epsilon: float = 1e-6
) -> tuple[tf.Tensor, tf.Tensor]:
    # The sum and the norm of layer_norm stay two operators: on the CPU they take half the time of
    # SkipLayerNormalization, into which other providers fuse them.
    result = (x.dtype.name, _static(x))
    y, total = emit(
        "SkipSimplifiedLayerNormalization",
        [x, update, _like(scale, x)],
        [result, None, None, result],
        epsilon=epsilon,
    )
    return y, total


def _rotary(
    x: Any, positions: Any, cos: Any, sin: Any, num_heads: int, interleaved: bool = False
) -> tf.Tensor:
    turned, head_dim = 2 * cos.shape[-1], x.shape[-1] // num_heads
    if positions.shape[0] == 1:  # a whole text, from its beginning
        places = _constant("first_position", np.zeros(1, "int64"))
    else:
        places = _cast(positions, "int64")
    return emit(
        "RotaryEmbedding",
        [x, places, _like(cos, x), _like(sin, x)],
        [(x.dtype.name, _static(x))],
        num_heads=num_heads,
        interleaved=int(interleaved),
        rotary_embedding_dim=turned if turned < head_dim else 0,
    )[0]


def _attention(query: Any, key: Any, value: Any, span: Any, **facts: Any) -> Any:
    """GroupQueryAttention for a decoder's cached self attention, MultiHeadAttention for an
    encoder's and for cross attention; what neither can do stays with the reference.
    """
    head_dim = query.shape[-1] // facts["num_heads"]
    ready = key.shape.rank == 4
    cached = span.cache == "buffer" and facts["past"] is not None and not ready
    if cached and head_dim % 8 == 0:
        return _group_query_attention(query, key, value, span, head_dim, **facts)
    if (
        not span.causal
        and facts["softcap"] is None
        and facts["sinks"] is None
        and facts["num_kv_heads"] == facts["num_heads"]
        and (span.cache is None)
    ):
        return _multi_head_attention(query, key, value, span, **facts)
    if cached:  # the reference needs room for the new tokens, the operator makes it
        facts["past"] = tuple(_with_room(part, span.total) for part in facts["past"])
    return ops.REFERENCE["attention"](query, key, value, span, **facts)


def _with_room(cache: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """A cache [B, H, P, D] for at least `positions`: a first call may come with an empty one."""
    missing = tf.maximum(positions - tf.shape(cache)[2], 0)
    return tf.pad(cache, [[0, 0], [0, 0], [0, missing], [0, 0]])


def _group_query_attention(
    query: Any, key: Any, value: Any, span: Any, head_dim: int, **facts: Any
) -> Any:
    cos = sin = None
    if facts["angles"] is not None:
        cos, sin = facts["angles"]
        if head_dim % 16 or cos.shape[-1] % 8:  # sizes that the operator's own rotary does not take
            turned = {"positions": span.positions, "cos": cos, "sin": sin}
            turned["interleaved"] = facts["interleaved"]
            query = ops.rotary(query, num_heads=facts["num_heads"], **turned)
            key = ops.rotary(key, num_heads=facts["num_kv_heads"], **turned)
            cos = sin = None
    cos, sin = _like(cos, query), _like(sin, query)
    past_key, past_value = facts["past"]
    attributes: dict[str, Any] = {
        "num_heads": facts["num_heads"],
        "kv_num_heads": facts["num_kv_heads"],
        "scale": facts["scale"],
        "do_rotary": int(cos is not None),
        "rotary_interleaved": int(facts["interleaved"]),
        "local_window_size": facts["window"] or -1,
    }
    if facts["softcap"] is not None:
        attributes["softcap"] = facts["softcap"]
    cache = (query.dtype.name, _static(past_key))
    inputs = [query, key, value, past_key, past_value, span.newest, span.total, cos, sin]
    if facts["bias"] is not None:
        inputs += [None, _like(facts["bias"], query)]
    if facts["sinks"] is not None:
        inputs += [None] * (11 - len(inputs)) + [_like(facts["sinks"], query)]
    mixed, present_key, present_value = emit(
        "GroupQueryAttention",
        inputs,
        [(query.dtype.name, _static(query)), cache, cache],
        **attributes,
    )
    return mixed, (present_key, present_value)


def _multi_head_attention(query: Any, key: Any, value: Any, span: Any, **facts: Any) -> Any:
    if facts["angles"] is not None:
        turned = dict(zip(("cos", "sin"), facts["angles"], strict=True))
        turned |= {"positions": span.positions, "interleaved": facts["interleaved"]}
        turned["num_heads"] = facts["num_heads"]
        query, key = ops.rotary(query, **turned), ops.rotary(key, **turned)
    bias, unseen = facts["bias"], -1e9 if query.dtype == tf.float32 else -3e4
    mask = None if span.attention_mask is None else span.mask
    if facts["window"] is not None:  # what is seen through it holds the padding already
        allowed, mask = span.allowed(facts["window"]), None
        hidden = once(lambda: tf.where(allowed, 0.0, unseen), "hidden", allowed.ref(), unseen)
        bias = hidden if bias is None else tf.cast(bias, "float32") + hidden
    mixed = emit(
        "MultiHeadAttention",
        [query, key, value, None, mask, _like(bias, query)],
        [(query.dtype.name, _static(query))],
        num_heads=facts["num_heads"],
        scale=facts["scale"],
        mask_filter_value=unseen,
    )[0]
    return mixed, None


ONNXRUNTIME: dict[str, Callable[..., Any]] = {
    **PORTABLE,
    "linear": _fused_linear,
    "gelu": _activation("Gelu"),  # BiasGelu takes longer than the sum and it
    "gelu_tanh": _activation("FastGelu", "FastGelu"),
    "gelu_sigmoid": _activation("QuickGelu", alpha=1.702),
    "silu": _activation("QuickGelu", alpha=1.0),
    "add_rms_norm": _add_rms_norm,
    "rotary": _rotary,
    "attention": _attention,
}
"""The operators that ONNX Runtime's CPU and CUDA providers run fastest."""

TARGETS: dict[str, dict[str, Callable[..., Any]]] = {
    "onnxruntime": ONNXRUNTIME,
    "portable": PORTABLE,
}
