"""Encoder, decoder and encoder-decoder, each composed from the same embeddings and blocks."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops as kops

from zoo import ops
from zoo.backbones.config import EncoderDecoderConfig, TransformerConfig
from zoo.layers.attention import KeyValue
from zoo.layers.block import Block
from zoo.layers.linear import Embedding
from zoo.layers.norm import Norm
from zoo.layers.positions import AlibiBias, RelativeBias, rotary_tables, sinusoids
from zoo.layers.span import CacheLayout, Span


class Embeddings(keras.layers.Layer):
    """Token (scaled), segment and absolute position embeddings, with their norm and dropout: [B, S]
    -> [B, S, D].
    """

    def __init__(
        self,
        config: TransformerConfig,
        length: int,
        tokens: Embedding | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.length = length

        def embedding(size: int, name: str) -> Embedding:
            return Embedding(size, config.hidden_dim, config.initializer_range, name=name)

        self.owns_tokens = tokens is None
        self.tokens = embedding(config.vocab_size, "tokens") if tokens is None else tokens
        self.positions = embedding(length, "positions") if config.positions == "learned" else None
        self.types = embedding(config.token_types, "types") if config.token_types else None
        self.norm = None
        if config.embedding_norm:
            self.norm = Norm(config.norm, config.norm_epsilon, config.norm_bias, name="norm")
        self.dropout = (
            keras.layers.Dropout(config.dropout, name="dropout") if config.dropout else None
        )

    def build(self, input_shape: Any = None) -> None:
        if self.owns_tokens:
            self.tokens.build()
        for table in (self.positions, self.types):
            if table is not None:
                table.build()
        if self.norm is not None:
            self.norm.build((None, None, self.config.hidden_dim))

    def call(
        self, input_ids: Any, span: Span, token_type_ids: Any = None, training: bool | None = None
    ) -> Any:
        x = self.tokens(input_ids)
        if self.config.embedding_scale is not None:
            x = x * self.config.embedding_scale
        if self.positions is not None:
            x = x + self.positions(span.positions)
        elif self.config.positions == "sinusoidal":
            table = ops.constant("sinusoids", sinusoids(self.length, self.config.hidden_dim))
            x = x + kops.cast(ops.embed(span.positions, table), x.dtype)
        if self.types is not None:
            if token_type_ids is None:
                token_type_ids = kops.zeros_like(input_ids)
            x = x + self.types(token_type_ids)
        if self.norm is not None:
            x = self.norm(x)[0]
        return x if self.dropout is None else self.dropout(x, training=training)


class Stack(keras.layers.Layer):
    """Embeddings, blocks and final norm: an encoder (causal=False) or a decoder (causal=True).

    Args:
        config: The facts.
        causal: Whether a position sees only those before it.
        num_layers: Number of blocks.
        length: Longest text.
        cross: With cross attention to an encoder's states.
        tokens: A token embedding to share.
    """

    def __init__(
        self,
        config: TransformerConfig,
        *,
        causal: bool,
        num_layers: int,
        length: int,
        cross: bool = False,
        tokens: Embedding | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.causal = causal
        self.length = length
        self.embeddings = Embeddings(config, length, tokens, name="embeddings")
        self.blocks = [Block(config, i, cross, name=f"block_{i}") for i in range(num_layers)]
        self.bias = None
        if config.positions == "alibi":
            self.bias = AlibiBias(config.num_heads, name="alibi")
        elif config.positions == "relative":
            self.bias = RelativeBias(
                config.num_heads,
                config.relative_buckets,
                config.relative_max_distance,
                bidirectional=not causal,
                name="relative_bias",
            )
        self.final_norm = None
        if config.final_norm:
            self.final_norm = Norm(
                config.norm, config.norm_epsilon, config.norm_bias, name="final_norm"
            )

    def build(self, input_shape: Any = None) -> None:
        self.embeddings.build()
        for block in self.blocks:
            block.build((None, None, self.config.hidden_dim))
        if isinstance(self.bias, RelativeBias):
            self.bias.build()
        if self.final_norm is not None:
            self.final_norm.build((None, None, self.config.hidden_dim))

    def call(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        past: Sequence[KeyValue] | None = None,
        memory: Sequence[KeyValue] | None = None,
        memory_attention_mask: Any = None,
        cache: CacheLayout | None = None,
        training: bool | None = None,
    ) -> tuple[Any, list[KeyValue] | None, Span]:
        """Runs the stack.

        Args:
            input_ids: [B, S].
            attention_mask: [B, T]; see `Span`.
            token_type_ids: [B, S] segments.
            past: Each layer's cached keys and values.
            memory: Each layer's cross-attention keys and values.
            memory_attention_mask: [B, T of the encoder]. (Keras would fill a `memory_mask` itself.)
            cache: The cache's layout; None: no cache.
            training: Whether dropout is on.

        Returns:
            (hidden states [B, S, D], each layer's present, or None without a cache, the span of the
            call).
        """
        span = Span(attention_mask, kops.shape(input_ids)[1], self.causal, cache)
        memory_span = None
        if memory is not None:
            length = kops.shape(memory[0][0])[2]
            memory_span = Span(memory_attention_mask, length, causal=False)
        angles = None
        if self.config.positions == "rotary":
            cos, sin = rotary_tables(self.length, self.config.rotary_dim, self.config.rotary_base)
            angles = (ops.constant("rotary_cos", cos), ops.constant("rotary_sin", sin))
        bias = None if self.bias is None else self.bias(span=span)
        x = self.embeddings(input_ids, span=span, token_type_ids=token_type_ids, training=training)
        update, presents = None, []
        for i, block in enumerate(self.blocks):
            x, update, present = block(
                x,
                update=update,
                span=span,
                past=None if past is None else past[i],
                memory=None if memory is None else memory[i],
                memory_span=memory_span,
                angles=angles,
                bias=bias,
                training=training,
            )
            presents.append(present)
        if self.final_norm is not None:
            x = self.final_norm(x, update=update)[0]
        elif update is not None:
            x = x + update
        return x, None if cache is None else presents, span

    def project_memory(self, states: Any) -> list[KeyValue]:
        """Each layer's cross-attention keys and values of the encoder's states [B, T, D]."""
        return [block.cross_attention.project(states) for block in self.blocks]


def encoder(config: TransformerConfig, name: str = "encoder") -> Stack:
    """The stack of an encoder."""
    return Stack(
        config, causal=False, num_layers=config.num_layers, length=config.max_length, name=name
    )


def decoder(config: TransformerConfig, name: str = "decoder") -> Stack:
    """The stack of a decoder."""
    return Stack(
        config, causal=True, num_layers=config.num_layers, length=config.max_length, name=name
    )


def cross_decoder(
    config: EncoderDecoderConfig, tokens: Embedding | None, name: str = "decoder"
) -> Stack:
    """The decoder of an encoder-decoder; `tokens` is the encoder's embedding where it is shared."""
    return Stack(
        config,
        causal=True,
        num_layers=config.num_decoder_layers,
        length=config.max_target_length,
        cross=True,
        tokens=tokens,
        name=name,
    )
