"""Attention: projections around the primitive, for self and cross attention, grouped heads and
caches.
"""

from typing import Any

import keras

from zoo import ops
from zoo.backbones.config import TransformerConfig
from zoo.layers.linear import Linear
from zoo.layers.norm import HeadNorm
from zoo.layers.positions import disentangled_bias
from zoo.layers.span import Span

KeyValue = tuple[Any, Any]  # ([B, kv_heads, T, head_dim], the same)


class Attention(keras.layers.Layer):
    """Multi-head or grouped-query attention with its four projections.

    Self attention is `call(x, span, ...)`; `distances`, both [1, 2 S - 1, D], are the states of
    relative positions in disentangled attention (see `RelativeStates`). Cross attention gives
    `memory`, the other text's keys and values, which `project` computes once from its states
    [B, T, D].

    Args:
        config: The facts.
        window: Local attention; None: everything is seen.
    """

    def __init__(self, config: TransformerConfig, window: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.window = window

        def linear(units: int, use_bias: bool, name: str) -> Linear:
            return Linear(units, use_bias, config.initializer_range, name=name)

        kv_dim = config.num_kv_heads * config.head_dim
        self.query = linear(config.num_heads * config.head_dim, config.attention_bias, "query")
        self.key = linear(kv_dim, config.attention_bias, "key")
        self.value = linear(kv_dim, config.attention_bias, "value")
        self.output_projection = linear(
            config.hidden_dim, bool(config.attention_output_bias), "output"
        )
        self.distance_query = self.distance_key = None
        if config.position_bias == "disentangled" and config.distance_projections:
            width, bias = config.num_heads * config.head_dim, config.attention_bias
            if "position_to_content" in config.disentangled_terms:
                self.distance_query = linear(width, bias, "distance_query")
            if "content_to_position" in config.disentangled_terms:
                self.distance_key = linear(width, bias, "distance_key")
        self.query_norm = self.key_norm = None
        if config.qk_norm:
            self.query_norm = HeadNorm(config, config.num_heads, name="query_norm")
            self.key_norm = HeadNorm(config, config.num_kv_heads, name="key_norm")
        self.dropout = None
        if config.attention_dropout:
            self.dropout = keras.layers.Dropout(config.attention_dropout, name="dropout")

    def build(self, input_shape: tuple) -> None:
        width = (None, None, self.config.hidden_dim)
        own = (self.distance_query, self.distance_key)
        for projection in (self.query, self.key, self.value, *own):
            if projection is not None:
                projection.build(width)
        self.output_projection.build((None, None, self.query.units))
        for norm in (self.query_norm, self.key_norm):
            if norm is not None:
                norm.build()
        self.sinks = None
        if self.config.attention_sinks:
            self.sinks = self.add_weight(
                shape=(self.config.num_heads,), initializer="zeros", name="sinks"
            )

    def project(self, states: Any) -> KeyValue:
        """Keys and values of `states` [B, T, D], ready to be attended to: [B, kv_heads, T,
        head_dim] each.
        """
        heads = self.config.num_kv_heads
        key = _normalised(self.key(states), self.key_norm)
        return ops.split_heads(key, heads), ops.split_heads(self.value(states), heads)

    def call(
        self,
        x: Any,
        span: Span,
        past: KeyValue | None = None,
        memory: KeyValue | None = None,
        angles: tuple[Any, Any] | None = None,
        bias: Any = None,
        distances: tuple[Any, Any] | None = None,
        training: bool | None = None,
    ) -> tuple[Any, KeyValue | None]:
        config = self.config
        query = _normalised(self.query(x), self.query_norm)
        if memory is None:
            key = _normalised(self.key(x), self.key_norm)
            value = self.value(x)
        else:
            key, value = memory
        if distances is not None:
            places = self._places(distances)
            facts = (config.num_heads, config.attention_scale, span.length)
            bias = disentangled_bias(query, key, *places, *facts)
        dropout = None
        if self.dropout is not None and training:
            dropout = self._drop
        mixed, present = ops.attention(
            query,
            key,
            value,
            span,
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            scale=config.attention_scale,
            past=past,
            angles=angles,
            interleaved=config.rotary_interleaved,
            bias=bias,
            window=self.window,
            softcap=config.attention_softcap,
            sinks=self.sinks,
            dropout=dropout,
        )
        return self.output_projection(mixed), present

    def _places(self, distances: tuple[Any, Any]) -> tuple[Any, Any]:
        """Queries and keys of the distances, None where the bias has no such term."""
        terms = self.config.disentangled_terms
        query = (self.distance_query or self.query) if "position_to_content" in terms else None
        key = (self.distance_key or self.key) if "content_to_position" in terms else None
        forwards, backwards = distances
        return query and query(backwards), key and key(forwards)

    def _drop(self, weights: Any) -> Any:
        return self.dropout(weights, training=True)


def _normalised(x: Any, norm: HeadNorm | None) -> Any:
    return x if norm is None else norm(x)
