"""Norms, alone or fused with the sum of the residual stream."""

from typing import Any

import keras
from keras import ops as kops

from zoo import ops
from zoo.backbones.config import TransformerConfig


class Norm(keras.layers.Layer):
    """Layer norm (mean and variance, optional offset) or RMS norm (no mean) over the last axis.

    Shapes: [..., D] -> [..., D]. Weights: scale [D], and offset [D] where `use_bias` and kind is
        "layer".

    Args:
        kind: "layer" or "rms".
        epsilon: Added to the variance.
        use_bias: With an offset.
        unit_offset: The weight is the scale less 1.
    """

    def __init__(
        self,
        kind: str,
        epsilon: float,
        use_bias: bool = True,
        unit_offset: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kind = kind
        self.epsilon = epsilon
        self.use_bias = use_bias and kind == "layer"
        self.unit_offset = unit_offset

    @classmethod
    def of(cls, config: TransformerConfig, name: str) -> "Norm":
        """The norm that a config describes."""
        facts = (config.norm, config.norm_epsilon, config.norm_bias, config.norm_unit_offset)
        return cls(*facts, name=name)

    def build(self, input_shape: tuple) -> None:
        width = (input_shape[-1],)
        first = "zeros" if self.unit_offset else "ones"
        self.scale = self.add_weight(shape=width, initializer=first, name="scale", autocast=False)
        self.offset = None
        if self.use_bias:
            self.offset = self.add_weight(
                shape=width, initializer="zeros", name="offset", autocast=False
            )

    def call(self, x: Any, update: Any = None) -> tuple[Any, Any]:
        """Returns (norm(x + update), x + update); `update` None stands for nothing to add."""
        if self.kind == "rms":
            scale = self.scale + 1.0 if self.unit_offset else self.scale
            if update is None:
                return ops.rms_norm(x, scale, self.epsilon), x
            return ops.add_rms_norm(x, update, scale, self.epsilon)
        if update is None:
            return ops.layer_norm(x, self.scale, self.offset, self.epsilon), x
        return ops.add_layer_norm(x, update, self.scale, self.offset, self.epsilon)


class HeadNorm(keras.layers.Layer):
    """Norm of queries or keys, whose heads lie side by side: [B, S, H * D] -> the same.

    Args:
        config: The facts.
        num_heads: H.
    """

    def __init__(self, config: TransformerConfig, num_heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.num_heads = num_heads
        self.scope = config.qk_norm_scope
        facts = (config.qk_norm, config.norm_epsilon, config.norm_bias, config.norm_unit_offset)
        shared = 1 if self.scope != "each_head" else num_heads
        names = ["norm"] if shared == 1 else [f"head_{i}" for i in range(num_heads)]
        self.norms = [Norm(*facts, name=name) for name in names]

    def build(self, input_shape: Any = None) -> None:
        width = self.config.head_dim * (self.num_heads if self.scope == "all" else 1)
        for norm in self.norms:
            norm.build((None, None, width))

    def call(self, x: Any) -> Any:
        if self.scope == "all":
            return self.norms[0](x)[0]
        if self.scope == "each_head":
            heads = kops.split(x, self.num_heads, axis=-1)
            normed = [norm(head)[0] for norm, head in zip(self.norms, heads, strict=True)]
            return kops.concatenate(normed, axis=-1)
        batch, length, width = kops.shape(x)
        heads = kops.reshape(x, (batch, length, self.num_heads, self.config.head_dim))
        return kops.reshape(self.norms[0](heads)[0], (batch, length, width))
