"""Encoder, decoder and encoder-decoder, each composed from the same embeddings and blocks."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops as kops

from zoo import ops
from zoo.backbones.config import EncoderDecoderConfig, TransformerConfig
from zoo.layers.attention import KeyValue
from zoo.layers.block import Block
from zoo.layers.linear import Embedding, Linear
from zoo.layers.ngrams import NgramEmbedding
from zoo.layers.norm import Norm
from zoo.layers.positions import (
    AlibiBias,
    RelativeBias,
    RelativeStates,
    Rotary,
    RoundedAlibiBias,
    sinusoids,
)
from zoo.layers.span import CacheLayout, Span


class Embeddings(keras.layers.Layer):
    """Token (scaled), segment and absolute position embeddings, with their norm, dropout and
    projection: [B, S] -> [B, S, D].
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
        self.rows = length + config.position_offset
        first = config.embedding_projection_first
        self.width = config.hidden_dim if first else config.embedding_dim

        def embedding(size: int, width: int, name: str) -> Embedding:
            return Embedding(size, width, config.initializer_range, name=name)

        self.owns_tokens = tokens is None
        if tokens is None:
            tokens = embedding(config.vocab_size, config.embedding_dim, "tokens")
        self.tokens = tokens
        self.positions = self.types = self.ngrams = self.norm = self.projection = None
        if config.ngram_lengths:
            self.ngrams = NgramEmbedding(
                config.ngram_lengths, config.ngram_buckets, self.tokens.width, name="ngrams"
            )
        if config.positions == "learned":
            self.positions = embedding(self.rows, self.width, "positions")
        if config.token_types:
            self.types = embedding(config.token_types, self.width, "types")
        if config.embedding_norm:
            self.norm = Norm.of(config, "norm")
        if config.embedding_projection:
            bias = config.embedding_projection_bias
            self.projection = Linear(
                config.hidden_dim, bias, config.initializer_range, name="projection"
            )
        self.dropout = self.token_dropout = None
        if config.dropout:
            self.dropout = keras.layers.Dropout(config.dropout, name="dropout")
        if config.token_dropout:
            self.token_dropout = keras.layers.Dropout(
                config.token_dropout, noise_shape=(None, None, 1), name="token_dropout"
            )

    def build(self, input_shape: Any = None) -> None:
        if self.owns_tokens:
            self.tokens.build()
        for table in (self.positions, self.types, self.ngrams):
            if table is not None:
                table.build()
        if self.norm is not None:
            self.norm.build((None, None, self.width))
        if self.projection is not None:
            self.projection.build((None, None, self.config.embedding_dim))

    def call(
        self, input_ids: Any, span: Span, token_type_ids: Any = None, training: bool | None = None
    ) -> Any:
        x = self.tokens(input_ids)
        if self.ngrams is not None:
            x = x + self.ngrams(input_ids)
        if self.token_dropout is not None:
            x = self.token_dropout(x, training=training)
        if self.config.embedding_scale is not None:
            x = x * self.config.embedding_scale
        project_last = self.projection is not None
        if project_last and self.config.embedding_projection_first:
            x, project_last = self.projection(x), False
        if self.config.positions in ("learned", "sinusoidal"):
            rows = span.positions + self.config.position_offset
        if self.positions is not None:
            x = x + self.positions(rows)
        elif self.config.positions == "sinusoidal":
            table = sinusoids(self.rows, self.width, self.config.sinusoid_form)
            x = x + kops.cast(ops.embed(rows, ops.constant("sinusoids", table)), x.dtype)
        if self.types is not None:
            if token_type_ids is None:
                token_type_ids = kops.zeros_like(input_ids)
            x = x + self.types(token_type_ids)
        if self.norm is not None:
            x = self.norm(x)[0]
        if self.dropout is not None:
            x = self.dropout(x, training=training)
        return self.projection(x) if project_last else x


class Stack(keras.layers.Layer):
    """Embeddings, blocks, final norm and output map: an encoder (causal=False) or a decoder
    (causal=True).

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
        count = min(config.shared_blocks or num_layers, num_layers)
        self.blocks = [Block(config, i, cross, name=f"block_{i}") for i in range(count)]
        turns = config.blocks_in_turn
        runs, rounds = count // turns, num_layers // turns
        places = (divmod(i, turns) for i in range(num_layers))
        self.layers = [self.blocks[step * runs // rounds * turns + place] for step, place in places]
        self.rotary = Rotary(config, length)
        self.bias = self.relative_states = None
        if config.position_bias == "alibi":
            self.bias = AlibiBias(config.num_heads, name="alibi")
        elif config.position_bias == "rounded_alibi":
            facts = (config.num_heads, length, config.attention_scale)
            self.bias = RoundedAlibiBias(*facts, name="alibi")
        elif config.position_bias == "disentangled":
            self.relative_states = RelativeStates(config, length, name="relative_states")
        elif config.position_bias == "relative":
            self.bias = RelativeBias(
                config.num_heads,
                config.relative_buckets,
                config.relative_max_distance,
                bidirectional=not causal,
                name="relative_bias",
            )
        self.final_norm = self.output_projection = None
        if config.final_norm:
            self.final_norm = Norm.of(config, "final_norm")
        if config.output_dim != config.hidden_dim:
            self.output_projection = Linear(
                config.output_dim, False, config.initializer_range, name="output_projection"
            )

    def build(self, input_shape: Any = None) -> None:
        self.embeddings.build()
        for block in self.blocks:
            block.build((None, None, self.config.hidden_dim))
        for part in (self.bias, self.relative_states):
            if part is not None and not isinstance(part, AlibiBias | RoundedAlibiBias):
                part.build()
        for part in (self.final_norm, self.output_projection):
            if part is not None:
                part.build((None, None, self.config.hidden_dim))

    def call(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        past: Sequence[KeyValue] | None = None,
        memory: Sequence[KeyValue] | None = None,
        memory_attention_mask: Any = None,
        cache: CacheLayout | None = None,
        trail: Callable[[Any], None] | None = None,
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
            trail: Called with the states [B, S, D] behind the embeddings and behind each block.
            training: Whether dropout is on.

        Returns:
            (hidden states [B, S, output_dim], each layer's present, or None without a cache, the
            span of the call).
        """
        span = Span(attention_mask, kops.shape(input_ids)[1], self.causal, cache)
        memory_span = None
        if memory is not None:
            length = kops.shape(memory[0][0])[2]
            memory_span = Span(memory_attention_mask, length, causal=False)
        angles = self.rotary.tables(span)
        bias = None if self.bias is None else self.bias(span=span)
        distances = None if self.relative_states is None else self.relative_states(span=span)
        x = self.embeddings(input_ids, span=span, token_type_ids=token_type_ids, training=training)
        if trail is not None:
            trail(x)
        update, presents = None, []
        for i, block in enumerate(self.layers):
            x, update, present = block(
                x,
                update=update,
                span=span,
                past=None if past is None else past[i],
                memory=None if memory is None else memory[i],
                memory_span=memory_span,
                angles=angles(i),
                bias=bias,
                distances=distances,
                training=training,
            )
            presents.append(present)
            if trail is not None:
                trail(x if update is None else x + update)
        if self.final_norm is not None:
            x = self.final_norm(x, update=update)[0]
        elif update is not None:
            x = x + update
        if self.output_projection is not None:
            x = self.output_projection(x)
        return x, None if cache is None else presents, span

    def project_memory(self, states: Any) -> list[KeyValue]:
        """Each layer's cross-attention keys and values of the encoder's states [B, T, D]."""
        return [block.cross_attention.project(states) for block in self.layers]


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
        config.decoder_side,
        causal=True,
        num_layers=config.num_decoder_layers,
        length=config.max_target_length,
        cross=True,
        tokens=tokens,
        name=name,
    )
