"""Heads: what a task computes from a stack's hidden states. All families share them."""

from collections.abc import Iterable
from typing import Any

import keras
from keras import ops as kops

from zoo import ops
from zoo.backbones.config import TransformerConfig
from zoo.config import nearest
from zoo.errors import ConfigError
from zoo.layers.linear import Embedding, Linear
from zoo.layers.norm import Norm

POOLINGS = ("cls", "mean", "max", "last")


def _known(name: str, value: str | None, choices: Iterable[str]) -> str | None:
    if value is not None and value not in choices:
        raise ConfigError(f"head fact {name} = {value!r} is not known: {nearest(value, choices)}")
    return value


def pool(states: Any, attention_mask: Any, how: str) -> Any:
    """[B, T, D] -> [B, D]: the first token ("cls"), the mean or maximum over tokens, or the last
    token.
    """
    if how == "cls":
        return states[:, 0]
    if attention_mask is None:
        attention_mask = kops.ones(kops.shape(states)[:2], dtype="int32")
    mask = kops.expand_dims(kops.cast(attention_mask, states.dtype), -1)
    if how == "mean":
        return kops.sum(states * mask, axis=1) / kops.maximum(kops.sum(mask, axis=1), 1)
    if how == "max":
        return kops.max(states + (mask - 1) * 1e4, axis=1)
    steps = kops.arange(kops.shape(states)[1], dtype="int32")
    last = kops.argmax(kops.cast(attention_mask, "int32") * (steps + 1), axis=1)
    hit = kops.cast(steps[None, :] == kops.cast(kops.expand_dims(last, 1), "int32"), states.dtype)
    return kops.sum(states * kops.expand_dims(hit, -1), axis=1)


class LanguageHead(keras.layers.Layer):
    """Logits over the vocabulary [..., V] from the token embedding, or from a kernel of its own
    where it is not tied, after a projection where the embedding is narrower than the states.

    With `transform`, the dense layer and norm of BERT's masked-language head, and a bias.
    """

    def __init__(
        self, config: TransformerConfig, tokens: Embedding, transform: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.tokens = tokens if config.tie_embeddings else None
        self.kernel = None
        self.with_bias = transform if config.logit_bias is None else config.logit_bias
        self.dense = self.norm = None
        if self.tokens is None:
            self.kernel = Linear(
                config.vocab_size,
                use_bias=False,
                initializer_range=config.initializer_range,
                name="output",
            )
        if transform:
            self.dense = Linear(
                config.embedding_dim, config.head_bias, config.initializer_range, name="dense"
            )
            self.norm = Norm.of(config, "norm")
        elif config.embedding_dim != config.output_dim:
            self.dense = Linear(
                config.embedding_dim, False, config.initializer_range, name="projection"
            )
        self.activation = ops.ACTIVATIONS[config.head_activation or config.activation]

    def build(self, input_shape: Any = None) -> None:
        if self.dense is not None:
            self.dense.build((None, None, self.config.output_dim))
        for child in (self.kernel, self.norm):
            if child is not None:
                child.build((None, None, self.config.embedding_dim))
        self.bias = None
        if self.with_bias:
            self.bias = self.add_weight(
                shape=(self.config.vocab_size,), initializer="zeros", name="bias"
            )

    def call(self, states: Any) -> Any:
        x = states
        if self.dense is not None:
            x = self.dense(x)
        if self.norm is not None:
            x = self.norm(self.activation(x))[0]
        if self.config.logit_scale is not None:
            x = x * self.config.logit_scale
        logits = self.kernel(x) if self.tokens is None else self.tokens.logits(x)
        if self.bias is not None:
            logits = logits + self.bias
        logits = kops.cast(logits, "float32")
        if self.config.logit_softcap is not None:
            logits = self.config.logit_softcap * kops.tanh(logits / self.config.logit_softcap)
        return logits


class ClassifierHead(keras.layers.Layer):
    """Logits per text (`pooling` given) or per token (None): dropout, optional hidden layer,
    linear; float32.
    """

    def __init__(
        self,
        config: TransformerConfig,
        num_labels: int,
        pooling: str | None = None,
        hidden_activation: str | None = None,
        hidden_bias: bool = True,
        hidden_norm: bool = False,
        logits_bias: bool = True,
        dropout: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.pooling = _known("pooling", pooling, POOLINGS)
        rate = config.dropout if dropout is None else dropout
        self.dropout = keras.layers.Dropout(rate, name="dropout") if rate else None
        self.dense = self.activation = self.norm = None
        if hidden_norm:
            self.norm = Norm.of(config, "norm")
        if hidden_activation is not None:
            self.dense = Linear(
                config.output_dim, hidden_bias, config.initializer_range, name="dense"
            )
            _known("hidden_activation", hidden_activation, ops.ACTIVATIONS)
            self.activation = ops.ACTIVATIONS[hidden_activation]
        self.logits = Linear(num_labels, logits_bias, config.initializer_range, name="logits")

    def build(self, input_shape: Any = None) -> None:
        for child in (self.dense, self.norm, self.logits):
            if child is not None:
                child.build((None, None, self.config.output_dim))

    def call(self, states: Any, attention_mask: Any = None, training: bool | None = None) -> Any:
        x = states
        if self.pooling is not None:  # sums over a text need more digits than half precisions have
            x = pool(kops.cast(x, "float32"), attention_mask, self.pooling)
        if self.dense is not None:
            x = self.activation(self.dense(x))
        if self.norm is not None:
            x = self.norm(x)[0]
        if self.dropout is not None:
            x = self.dropout(x, training=training)
        return kops.cast(self.logits(x), "float32")


class EmbeddingHead(keras.layers.Layer):
    """One vector per text [B, D], pooled and, where `normalize`, of length 1; float32."""

    def __init__(self, pooling: str = "mean", normalize: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pooling = _known("pooling", pooling, POOLINGS)
        self.normalize = normalize

    def call(self, states: Any, attention_mask: Any = None) -> Any:
        x = pool(kops.cast(states, "float32"), attention_mask, self.pooling)
        if self.normalize:
            x = x * kops.rsqrt(kops.maximum(kops.sum(x * x, axis=-1, keepdims=True), 1e-12))
        return x
