"""The signatures of a .tflite file: a whole model, or encode, prefill and decode over a cache of
fixed length.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from export.graphs import (
    BATCH,
    KEEP,
    KEPT,
    PAST,
    SEQUENCE,
    TOTAL,
    Graph,
    Tensor,
    encode_graph,
    forward_graph,
    step_graph,
)
from zoo.tasks import TaskModel

DEFAULT_LENGTH = 1024
"""Positions of a cache, where the model allows as many."""

KeyValues = list[tuple[Any, Any]]


def litert_graphs(model: TaskModel, length: int | None) -> list[Graph]:
    """The signatures of `model`, each as a graph that bears the signature's name.

    Args:
        model: The model.
        length: Positions of the cache; None for tasks that write nothing.
    """
    if length is None:
        return [dataclasses.replace(forward_graph(model), name="serving_default")]
    graphs = [prefill_graph(model, length), decode_graph(model, length)]
    if model.encoder is not None:
        graphs.insert(0, dataclasses.replace(encode_graph(model), name="encode"))
    return graphs


def prefill_graph(model: TaskModel, length: int) -> Graph:
    """The prompt: `input_ids` and `attention_mask` [B, S] with S <= `length`, right padded, to the
    logits [B, 1, V] of each row's last token and a cache of `length` positions.
    """
    step = step_graph(model, "buffer")
    inputs = [tensor for tensor in step.inputs if not _is_past(tensor) and tensor.name != KEEP]
    memory = [tensor for tensor in inputs if _is_memory(tensor)]

    def last(states: tf.Tensor, span: Any) -> tf.Tensor:
        return tf.gather(states, span.last[:, None], axis=1, batch_dims=1)

    def call(feeds: dict[str, Any]) -> dict[str, Any]:
        room = length - tf.shape(feeds["input_ids"])[1]
        logits, pairs = model.step(
            feeds["input_ids"],
            feeds["attention_mask"],
            None,
            "buffer",
            memory=_pairs(feeds, memory) or None,
            memory_mask=feeds.get("encoder_attention_mask"),
            keep=last,
        )
        filled = [
            tuple(tf.pad(part, [[0, 0], [0, 0], [0, room], [0, 0]]) for part in pair)
            for pair in pairs
        ]
        return _results(step, logits, filled)

    sizes = {TOTAL: SEQUENCE, **_cache_sizes(step, length)}
    return Graph("prefill", _pinned(inputs, sizes), _pinned(step.outputs, sizes), call)


def decode_graph(model: TaskModel, length: int) -> Graph:
    """The next token: `input_ids` [B, 1], the cache, and `attention_mask` [B, `length`] with 1 for
    every position that is filled after the call, to logits [B, 1, V] and the new cache.
    """
    step = step_graph(model, "buffer")
    inputs = [tensor for tensor in step.inputs if tensor.name != KEEP]
    past = [tensor for tensor in inputs if _is_past(tensor)]
    memory = [tensor for tensor in inputs if _is_memory(tensor)]

    def call(feeds: dict[str, Any]) -> dict[str, Any]:
        logits, pairs = model.step(
            feeds["input_ids"],
            feeds["attention_mask"],
            _pairs(feeds, past),
            "buffer",
            memory=_pairs(feeds, memory) or None,
            memory_mask=feeds.get("encoder_attention_mask"),
            keep=lambda states, span: states,
        )
        return _results(step, logits, pairs)

    sizes = {SEQUENCE: 1, TOTAL: length, **_cache_sizes(step, length)}
    return Graph("decode", _pinned(inputs, sizes), _pinned(step.outputs, sizes), call)


def _is_memory(tensor: Tensor) -> bool:
    return tensor.name.startswith("past_key_values.") and ".encoder." in tensor.name


def _is_past(tensor: Tensor) -> bool:
    return tensor.name.startswith("past_key_values.") and ".encoder." not in tensor.name


def _cache_sizes(step: Graph, length: int) -> dict[str, int]:
    """Sizes of the axes that a cache of `length` positions and one kept position fix."""
    present = step.outputs[1].axes[2]
    assert isinstance(present, str)
    return {PAST: length, present: length, KEPT: 1}


def _pinned(tensors: Sequence[Tensor], sizes: dict[str, Any]) -> tuple[Tensor, ...]:
    """The tensors with sizes, or other names, in the place of the axes named in `sizes`."""
    return tuple(
        dataclasses.replace(tensor, axes=tuple(sizes.get(str(axis), axis) for axis in tensor.axes))
        for tensor in tensors
    )


def _pairs(feeds: dict[str, Any], tensors: Sequence[Tensor]) -> KeyValues:
    values = [feeds[tensor.name] for tensor in tensors]
    return list(zip(values[0::2], values[1::2], strict=True))


def _results(step: Graph, logits: Any, pairs: Any) -> dict[str, Any]:
    values = [logits, *(part for pair in pairs for part in pair)]
    return {tensor.name: value for tensor, value in zip(step.outputs, values, strict=True)}


__all__ = ["BATCH", "DEFAULT_LENGTH", "decode_graph", "litert_graphs", "prefill_graph"]
