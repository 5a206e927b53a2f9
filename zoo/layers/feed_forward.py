"""The position-wise feed-forward layer, plain or gated."""

from typing import Any

import keras

from zoo import ops
from zoo.backbones.config import TransformerConfig
from zoo.layers.linear import Linear


class FeedForward(keras.layers.Layer):
    """Plain: act(x W1) W2. Gated: (act(x Wg) * x W1) W2 (Shazeer, 2020). Shapes: [B, T, D] -> [B,
    T, D].
    """

    def __init__(self, config: TransformerConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.activation = ops.ACTIVATIONS[config.activation]

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
        return self.down(self.activation(self.gate(x)) * self.up(x))
