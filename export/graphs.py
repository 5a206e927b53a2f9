"""Which graphs a task is exported as: their functions, named tensors and dynamic axes. One table
for all formats.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from zoo.layers.span import CacheLayout
from zoo.tasks import TaskModel

BATCH, SEQUENCE, PAST, TOTAL = (
    "batch_size",
    "sequence_length",
    "past_sequence_length",
    "total_sequence_length",
)
ENCODER_SEQUENCE = "encoder_sequence_length"
ENCODER_BATCH = "encoder_batch_size"
"""Rows of the encoder's texts, where a step takes fewer of them than it has rows of its own."""
KEPT = "logits_length"

KEEP = "logits_to_keep"
"""The decoder's optional input: 0 gives the logits of all positions, 1 those of each row's last
token.
"""


@dataclass(frozen=True)
class Tensor:
    """An input or output: its name, type and axes (a string names a dynamic one)."""

    name: str
    dtype: str
    axes: tuple[int | str, ...]

    def spec(self) -> tf.TensorSpec:
        """The tensor as TensorFlow describes it."""
        shape = [axis if isinstance(axis, int) else None for axis in self.axes]
        return tf.TensorSpec(shape, self.dtype, name=self.name)


@dataclass(frozen=True)
class Graph:
    """One function to export: `call` takes and returns tensors by name.

    `defaults` are values of inputs that need not be fed.
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    call: Callable[[dict[str, Any]], dict[str, Any]]
    defaults: dict[str, Any] = field(default_factory=dict)


def _ids(name: str, length: str = SEQUENCE, batch: str = BATCH) -> Tensor:
    return Tensor(name, "int64", (batch, length))


_OUTPUT_AXES: dict[str, tuple[str, ...]] = {
    "text-classification": (BATCH, "num_labels"),
    "token-classification": (BATCH, SEQUENCE, "num_labels"),
    "question-answering": (BATCH, SEQUENCE),
    "fill-mask": (BATCH, SEQUENCE, "vocab_size"),
    "feature-extraction": (BATCH, SEQUENCE, "output_dim"),
    "sentence-similarity": (BATCH, "output_dim"),
}


def forward_graph(model: TaskModel) -> Graph:
    """The whole model without a cache."""
    inputs = [_ids("input_ids"), _ids("attention_mask")]
    length = SEQUENCE
    if model.config.token_types:
        inputs.append(_ids("token_type_ids"))
    if "decoder_input_ids" in model.required_inputs:
        length = "decoder_sequence_length"
        inputs.append(_ids("decoder_input_ids", length))
    sizes: dict[str, Any] = {
        "num_labels": len(model.labels or ()),
        "vocab_size": model.config.vocab_size,
        "output_dim": model.config.output_dim,
    }
    axes = _OUTPUT_AXES.get(model.task, (BATCH, length, "vocab_size"))
    outputs = tuple(
        Tensor(name, "float32", tuple(sizes.get(axis, axis) for axis in axes))
        for name in model.spec.outputs
    )
    return Graph("model", tuple(inputs), outputs, lambda feeds: model(feeds, training=False))


def _cache(
    model: TaskModel, prefix: str, kind: str, length: str, batch: str = BATCH
) -> list[Tensor]:
    """Keys and values of every layer, in the type that the model computes in; `kind` is "",
    "decoder." or "encoder.".
    """
    decoder: Any = model.decoder
    axes = (batch, decoder.config.num_kv_heads, length, decoder.config.head_dim)
    return [
        Tensor(f"{prefix}.{i}.{kind}{part}", model.compute_dtype, axes)
        for i in range(len(decoder.layers))
        for part in ("key", "value")
    ]


def _pairs(feeds: dict[str, Any], tensors: list[Tensor]) -> list[tuple[Any, Any]]:
    values = [feeds[tensor.name] for tensor in tensors]
    return list(zip(values[0::2], values[1::2], strict=True))


def _flat(tensors: list[Tensor], pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    values = [value for pair in pairs for value in pair]
    return {tensor.name: value for tensor, value in zip(tensors, values, strict=True)}


def encode_graph(model: TaskModel) -> Graph:
    """An encoder-decoder's encoder, with each decoder layer's cross-attention keys and values."""
    memory = _cache(model, "present", "encoder.", SEQUENCE)
    hidden = Tensor("last_hidden_state", "float32", (BATCH, SEQUENCE, model.config.hidden_dim))

    def call(feeds: dict[str, Any]) -> dict[str, Any]:
        states, pairs = model.encode(feeds["input_ids"], feeds["attention_mask"])
        return {hidden.name: tf.cast(states, "float32"), **_flat(memory, pairs)}

    inputs = (_ids("input_ids"), _ids("attention_mask"))
    return Graph("encoder", inputs, (hidden, *memory), call)


def step_graph(
    model: TaskModel,
    cache: CacheLayout,
    *,
    shared_memory: bool = False,
    hidden_states: bool = False,
) -> Graph:
    """One cached call of a decoder: prompt or next token. See `TaskModel.step`.

    The logits' middle axis is that of the default of `KEEP`, which feeding it may overrule.

    Args:
        model: The model.
        cache: The cache's layout.
        shared_memory: An encoder-decoder's memory may have fewer rows than the step, k rows of
            which read one row of it; see `export.shared_memory`.
        hidden_states: Also return the states [B, S, D] of all S positions that the head reads.
    """
    kind = "decoder." if model.encoder is not None else ""
    past = _cache(model, "past_key_values", kind, PAST)
    present = _cache(model, "present", kind, "present_sequence_length")
    inputs = [_ids("input_ids"), _ids("attention_mask", TOTAL), *past]
    memory: list[Tensor] = []
    if model.encoder is not None:
        rows = ENCODER_BATCH if shared_memory else BATCH
        memory = _cache(model, "past_key_values", "encoder.", ENCODER_SEQUENCE, rows)
        inputs += [_ids("encoder_attention_mask", ENCODER_SEQUENCE, rows), *memory]
    inputs.append(Tensor(KEEP, "int64", ()))
    # Clients of the growing layout expect all logits; a prompt's other logits only cost time. And
    # onnxruntime-genai, which feeds only what it knows, takes what is declared for what comes.
    default = 1 if cache == "buffer" else 0
    logits = Tensor("logits", "float32", (BATCH, default or KEPT, model.config.vocab_size))
    hidden = _hidden(model) if hidden_states else ()

    def call(feeds: dict[str, Any]) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        def keep(states: tf.Tensor, span: Any) -> tf.Tensor:
            seen.update({tensor.name: tf.cast(states, "float32") for tensor in hidden})
            return _kept_states(states, span, feeds[KEEP])

        logits_, pairs = model.step(
            feeds["input_ids"],
            feeds["attention_mask"],
            _pairs(feeds, past),
            cache,
            memory=_pairs(feeds, memory) or None,
            memory_mask=feeds.get("encoder_attention_mask"),
            keep=keep,
        )
        return {logits.name: logits_, **_flat(present, pairs), **seen}

    name = "decoder" if model.encoder is not None else "model"
    defaults = {KEEP: tf.constant(default, "int64").numpy()}
    return Graph(name, tuple(inputs), (logits, *present, *hidden), call, defaults)


def _hidden(model: TaskModel) -> tuple[Tensor, ...]:
    decoder: Any = model.decoder
    return (Tensor("last_hidden_state", "float32", (BATCH, SEQUENCE, decoder.config.output_dim)),)


def first_step_graph(model: TaskModel) -> Graph:
    """An encoder-decoder's first cached call, from the encoder's states: it begins every cache and
    computes the cross-attention keys and values, for clients that do not take the encoder's.
    """
    present = _cache(model, "present", "decoder.", SEQUENCE)
    memory = _cache(model, "present", "encoder.", ENCODER_SEQUENCE)
    states = Tensor(
        "encoder_hidden_states", "float32", (BATCH, ENCODER_SEQUENCE, model.config.hidden_dim)
    )
    inputs = (
        _ids("input_ids"),
        _ids("attention_mask"),
        _ids("encoder_attention_mask", ENCODER_SEQUENCE),
        states,
    )
    logits = Tensor("logits", "float32", (BATCH, SEQUENCE, model.config.vocab_size))
    decoder: Any = model.decoder

    def call(feeds: dict[str, Any]) -> dict[str, Any]:
        crossed = decoder.project_memory(tf.cast(feeds[states.name], model.compute_dtype))
        logits_, pairs = model.step(
            feeds["input_ids"],
            feeds["attention_mask"],
            None,
            "grow",
            memory=crossed,
            memory_mask=feeds["encoder_attention_mask"],
            keep=lambda states, span: states,
        )
        return {logits.name: logits_, **_flat(present, pairs), **_flat(memory, crossed)}

    return Graph("first_step", inputs, (logits, *present, *memory), call)


def _kept_states(states: tf.Tensor, span: Any, keep: tf.Tensor) -> tf.Tensor:
    """[B, S, D] -> [B, K, D]: all states if `keep` is 0 (K = S), else each row's last (K = 1)."""
    one = tf.cast(tf.minimum(keep, 1), "int32")  # integers in arithmetic: runtimes select floats
    steps = tf.range(tf.maximum(span.length * (1 - one), 1))
    index = tf.expand_dims(steps, 0) + tf.expand_dims(span.last * one, 1)  # (B, K)
    return tf.gather(states, index, batch_dims=1)


def onnx_graphs(model: TaskModel, cache: CacheLayout, hidden_states: bool = False) -> list[Graph]:
    """The graphs of an ONNX bundle; `hidden_states` as for `step_graph`."""
    if not model.generates:
        return [forward_graph(model)]
    step = step_graph(model, cache, shared_memory=True, hidden_states=hidden_states)
    return [step] if model.architecture == "decoder" else [encode_graph(model), step]
