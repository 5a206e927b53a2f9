"""Norms, alone or fused with the sum of the residual stream."""

from typing import Any

import keras

from zoo import ops


class Norm(keras.layers.Layer):
    """Layer norm (mean and variance, optional offset) or RMS norm (no mean) over the last axis.

    Shapes: [..., D] -> [..., D]. Weights: scale [D], and offset [D] where `use_bias` and kind is
        "layer".
    """

    def __init__(self, kind: str, epsilon: float, use_bias: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind = kind
        self.epsilon = epsilon
        self.use_bias = use_bias and kind == "layer"

    def build(self, input_shape: tuple) -> None:
        width = (input_shape[-1],)
        self.scale = self.add_weight(shape=width, initializer="ones", name="scale", autocast=False)
        self.offset = None
        if self.use_bias:
            self.offset = self.add_weight(
                shape=width, initializer="zeros", name="offset", autocast=False
            )

    def call(self, x: Any, update: Any = None) -> tuple[Any, Any]:
        """Returns (norm(x + update), x + update); `update` None stands for nothing to add."""
        if self.kind == "rms":
            if update is None:
                return ops.rms_norm(x, self.scale, self.epsilon), x
            return ops.add_rms_norm(x, update, self.scale, self.epsilon)
        if update is None:
            return ops.layer_norm(x, self.scale, self.offset, self.epsilon), x
        return ops.add_layer_norm(x, update, self.scale, self.offset, self.epsilon)
