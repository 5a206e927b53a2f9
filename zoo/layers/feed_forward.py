"""The position-wise feed-forward layer, plain, gated, or chosen by a router among experts."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops as kops

from zoo import ops
from zoo.backbones.config import TransformerConfig
from zoo.layers.linear import Linear, matrix_initializer


def gated_product(config: TransformerConfig) -> Callable[[Any, Any], Any]:
    """(gate, up) -> their product, as a config's `activation` and `gate_limit` say."""
    limit, activation = config.gate_limit, ops.ACTIVATIONS[config.activation]
    if limit is None:
        return lambda gate, up: activation(gate) * up

    def clamped(gate: Any, up: Any) -> Any:
        gate, up = kops.minimum(gate, limit), kops.clip(up, -limit, limit)
        return ops.gelu_sigmoid(gate) * (up + 1.0)

    return clamped


class FeedForward(keras.layers.Layer):
    """Plain: act(x W1) W2. Gated: (act(x Wg) * x W1) W2 (Shazeer, 2020). Shapes: [B, T, D] -> [B,
    T, D].
    """

    def __init__(self, config: TransformerConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.activation = ops.ACTIVATIONS[config.activation]
        self.combine = gated_product(config)

        def linear(units: int, name: str) -> Linear:
            return Linear(
                units,
                config.projection_bias,
                config.initializer_range,
                name=name,
            )

        self.gate = linear(config.intermediate_dim, "gate") if config.gated else None
        self.up = linear(config.intermediate_dim, "up")
        self.down = linear(config.hidden_dim, "down")

    def build(self, input_shape: tuple) -> None:
        if self.gate is not None:
            self.gate.build((None, None, self.config.hidden_dim))
        self.up.build((None, None, self.config.hidden_dim))
        self.down.build((None, None, self.config.intermediate_dim))

    def call(self, x: Any) -> Any:
        if self.gate is None:
            return self.down(self.activation(self.up(x)))
        return self.down(self.combine(self.gate(x), self.up(x)))


class Experts(keras.layers.Layer):
    """A mixture of gated experts, of which a router chooses some for each token (Shazeer et al.,
    2017; Jiang et al., 2024). Shapes: [B, T, D] -> [B, T, D].
    """

    def __init__(self, config: TransformerConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.combine = gated_product(config)
        self.router = Linear(
            config.num_experts, config.expert_bias, config.initializer_range, name="router"
        )

    def build(self, input_shape: Any = None) -> None:
        config = self.config
        self.router.build((None, None, config.hidden_dim))
        count, width, inner = config.num_experts, config.hidden_dim, config.expert_dim
        sizes = {"gate": (width, inner), "up": (width, inner), "down": (inner, width)}
        initializer = matrix_initializer(config.initializer_range)
        self.kernels = tuple(
            self.add_weight(shape=(count, *size), initializer=initializer, name=f"{name}_kernel")
            for name, size in sizes.items()
        )
        self.biases = None
        if config.expert_bias:
            self.biases = tuple(
                self.add_weight(shape=(count, size[1]), initializer="zeros", name=f"{name}_bias")
                for name, size in sizes.items()
            )

    def shares(self, x: Any) -> Any:
        """[B, T, E] float32: the weight of each expert, 0 where it is not chosen."""
        config = self.config
        scores = kops.cast(self.router(x), "float32")
        if config.expert_weights != "softmax_chosen":
            scores = kops.softmax(scores, axis=-1)
        best, chosen = kops.top_k(scores, config.experts_per_token)
        if config.expert_weights == "softmax_chosen":
            best = kops.softmax(best, axis=-1)
        elif config.expert_weights == "softmax_all_normalized":
            best = best / kops.sum(best, axis=-1, keepdims=True)
        numbers = kops.arange(config.num_experts, dtype="int32")
        hit = kops.expand_dims(kops.cast(chosen, "int32"), -1) == numbers  # (B, T, K, E)
        return kops.sum(kops.cast(hit, "float32") * kops.expand_dims(best, -1), axis=-2)

    def call(self, x: Any) -> Any:
        return ops.experts(x, self.shares(x), self.kernels, self.biases, self.combine)
