"""Generation as one graph: prompt in, new tokens out, with the cache inside the graph's own loop.

It follows `zoo.generation.generate` step for step, so that its tokens are the same.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from export.graphs import BATCH, SEQUENCE, Graph, Tensor
from zoo.tasks import TaskModel

NEW = "new_sequence_length"
Choose = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""(logits [B, V], step) -> int32 [B] tokens."""

_PROMPT = (
    Tensor("input_ids", "int64", (BATCH, SEQUENCE)),
    Tensor("attention_mask", "int64", (BATCH, SEQUENCE)),
    Tensor("max_new_tokens", "int64", ()),
)
SETTINGS = (
    Tensor("temperature", "float32", ()),
    Tensor("top_k", "int64", ()),
    Tensor("top_p", "float32", ()),
    Tensor("seed", "int64", ()),
)
"""What sampling is asked: top_k = 0 and top_p = 1 leave no token out."""
OUTPUT = Tensor("output_ids", "int64", (BATCH, NEW))


def generation_graphs(steps: "Steps") -> dict[str, Graph]:
    """`generate` takes the likeliest token each time, `sample` draws it."""

    def call(feeds: dict[str, Any]) -> dict[str, Any]:
        return {OUTPUT.name: generated(steps, feeds, chooser(feeds))}

    return {
        "generate": Graph("generate", _PROMPT, (OUTPUT,), call),
        "sample": Graph("sample", (*_PROMPT, *SETTINGS), (OUTPUT,), call),
    }


class Steps:
    """A model's cached calls as functions that several loops share, each traced once.

    Caches and an encoder-decoder's memory are flat lists: keys and values in turn, layer by layer.
    """

    def __init__(self, model: TaskModel) -> None:
        self.model = model
        decoder: Any = model.decoder
        side = (None, decoder.config.num_kv_heads, None, decoder.config.head_dim)
        self.cache = [tf.TensorSpec(side, model.compute_dtype)] * (2 * len(decoder.layers))
        mask = tf.TensorSpec((None, None), tf.int32)
        crossed = [self.cache, mask] if model.encoder is not None else []
        ids, one = tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, 1), tf.int32)
        self.prefill = _traced(self._begin, [ids, mask, *crossed])
        self.next = _traced(self._call, [one, mask, self.cache, *crossed])
        self.encode = _traced(lambda ids, mask: _flat(model.encode(ids, mask)[1]), [ids, mask])

    def _begin(self, new: Any, valid: Any, *memory: Any) -> Any:
        return self._call(new, valid, None, *memory)

    def _call(self, new: Any, valid: Any, past: Any, memory: Any = None, mask: Any = None) -> Any:
        """(float32 logits [B, V] of each row's last token, the present)."""
        pairs = past and _pairs(past)
        crossed = memory and _pairs(memory)
        logits, present = self.model.step(new, valid, pairs, "buffer", crossed, mask)
        return logits[:, -1], _flat(present)


def _traced(function: Callable[..., Any], signature: list[Any]) -> Any:
    return tf.function(function, input_signature=signature, autograph=False)


def _flat(pairs: Any) -> list[tf.Tensor]:
    return [value for pair in pairs for value in pair]


def _pairs(values: Any) -> list[tuple[tf.Tensor, tf.Tensor]]:
    return list(zip(values[0::2], values[1::2], strict=True))


def chooser(feeds: dict[str, Any]) -> Choose:
    """How the next token is chosen: drawn where `feeds` holds the settings of sampling."""
    if SETTINGS[0].name not in feeds:
        return lambda logits, step: tf.argmax(logits, axis=-1, output_type=tf.int32)
    temperature, top_k, top_p, seed = (feeds[tensor.name] for tensor in SETTINGS)

    def draw(logits: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        shape = tf.stack([tf.shape(logits)[0], 1])
        uniform = tf.random.stateless_uniform(
            shape, tf.stack([seed, tf.cast(step, tf.int64)]), dtype=tf.float64
        )
        return drawn(logits, uniform, temperature, top_k, top_p)

    return draw


def drawn(
    logits: tf.Tensor,
    uniform: tf.Tensor,
    temperature: tf.Tensor,
    top_k: tf.Tensor,
    top_p: tf.Tensor,
) -> tf.Tensor:
    """One token per row of `logits` [B, V], given uniform numbers [B, 1] in [0, 1): int32 [B]."""
    size = tf.shape(logits)[-1]
    scaled = tf.cast(logits, tf.float64) / tf.maximum(tf.cast(temperature, tf.float64), 1e-6)
    ranked, order = tf.math.top_k(scaled, size)  # ties by rising id
    weights = tf.nn.softmax(ranked, axis=-1)
    limit = tf.where(top_k > 0, top_k, tf.cast(size, tf.int64))
    weights = tf.where(tf.range(tf.cast(size, tf.int64)) < limit, weights, 0.0)
    before = tf.cumsum(weights, axis=-1, exclusive=True)
    # The likeliest token always stays. Without top_p no rounding of the sum may leave one out.
    kept = (before < tf.cast(top_p, tf.float64)) | (top_p >= 1.0) | (tf.range(size) == 0)
    cumulative = tf.cumsum(tf.where(kept, weights, 0.0), axis=-1)
    rank = tf.reduce_sum(tf.cast(cumulative <= uniform * cumulative[:, -1:], tf.int32), axis=-1)
    return tf.gather(order, tf.minimum(rank, size - 1), batch_dims=1)


def generated(steps: Steps, feeds: dict[str, Any], choose: Choose) -> tf.Tensor:
    """int64 [B, N] new tokens; padding follows a row's end token, N is that of the longest row.

    Args:
        steps: Of a model that generates.
        feeds: `input_ids` and `attention_mask` [B, T], right padded, and `max_new_tokens`.
        choose: See `Choose`.
    """
    model = steps.model
    config: Any = model.config
    decoder: Any = model.decoder
    ids = tf.cast(feeds["input_ids"], tf.int32)
    mask = tf.cast(feeds["attention_mask"], tf.int32)
    most = tf.cast(feeds["max_new_tokens"], tf.int32)
    batch = tf.shape(ids)[0]
    constants: list[Any] = []
    prompt, lengths = ids, tf.reduce_sum(mask, axis=1)
    if model.encoder is not None:
        constants = [steps.encode(ids, mask), mask]
        prompt = tf.fill([batch, 1], tf.constant(config.decoder_start_token_id, tf.int32))
        lengths = tf.ones([batch], tf.int32)
    capacity = tf.shape(prompt)[1] + most
    checks = [
        tf.debugging.Assert(most >= 1, ["max_new_tokens must be positive, it is", most]),
        tf.debugging.Assert(
            capacity <= decoder.length,
            ["prompt and new tokens exceed the model's length of", decoder.length, ":", capacity],
        ),
    ]
    with tf.control_dependencies(checks):
        capacity = tf.identity(capacity)
    slots = tf.range(capacity)[None, :]
    ends = [end for end in (config.eos_token_id, *config.stop_token_ids) if end is not None]

    def valid(lengths: Any) -> tf.Tensor:
        return tf.cast(slots < lengths[:, None], tf.int32)

    def accept(logits: Any, finished: Any, step: Any) -> tuple[tf.Tensor, tf.Tensor]:
        token = tf.where(finished, config.pad_token_id, choose(logits, step))
        for end in ends:
            finished |= token == end
        return token, finished

    def more(step: Any, token: Any, lengths: Any, finished: Any, out: Any, *cache: Any) -> Any:
        return (step < most) & ~tf.reduce_all(finished)

    def body(step: Any, token: Any, lengths: Any, finished: Any, out: Any, *cache: Any) -> Any:
        lengths += 1
        logits, present = steps.next(token[:, None], valid(lengths), list(cache), *constants)
        token, finished = accept(logits, finished, step)
        return (step + 1, token, lengths, finished, out.write(step, token), *present)

    logits, cache = steps.prefill(prompt, valid(lengths), *constants)
    token, finished = accept(logits, tf.zeros([batch], tf.bool), tf.constant(0))
    out = tf.TensorArray(tf.int32, 0, dynamic_size=True, element_shape=[None]).write(0, token)
    invariants = [tf.TensorShape([]), *[tf.TensorShape([None])] * 3, tf.TensorShape(None)]
    state = (tf.constant(1), token, lengths, finished, out, *cache)
    state = tf.while_loop(
        more,
        body,
        state,
        shape_invariants=(*invariants, *[spec.shape for spec in steps.cache]),
        parallel_iterations=1,
    )
    return tf.cast(tf.transpose(state[4].stack()), tf.int64)
