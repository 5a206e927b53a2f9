"""Norms, alone or fused with the sum of the residual stream."""

from typing import Any

import keras
import numpy as np
from keras import ops as kops

from zoo import ops
from zoo.backbones.config import TransformerConfig


class Norm(keras.layers.Layer):
    """Layer norm (mean and variance, optional offset) or RMS norm (no mean) over the last axis.

    Shapes: [..., D] -> [..., D]. Weights: scale [D] where `use_scale`, and offset [D] where
        `use_bias` and kind is "layer".

    Args:
        kind: "layer" or "rms".
        epsilon: Added to the variance.
        use_bias: With an offset.
        unit_offset: The weight is the scale less 1.
        use_scale: With a scale.
    """

    def __init__(
        self,
        kind: str,
        epsilon: float,
        use_bias: bool = True,
        unit_offset: bool = False,
        use_scale: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kind = kind
        self.epsilon = epsilon
        self.use_bias = use_bias and kind == "layer"
        self.unit_offset = unit_offset
        self.use_scale = use_scale

    @classmethod
    def of(cls, config: TransformerConfig, name: str) -> "Norm":
        """The norm that a config describes."""
        facts = (config.norm, config.norm_epsilon, config.norm_bias, config.norm_unit_offset)
        return cls(*facts, config.norm_scale, name=name)

    def build(self, input_shape: tuple) -> None:
        width = (input_shape[-1],)
        first = "zeros" if self.unit_offset else "ones"
        self.width = width[0]
        self.scale = self.offset = None
        if self.use_scale:
            self.scale = self.add_weight(
                shape=width, initializer=first, name="scale", autocast=False
            )
        if self.use_bias:
            self.offset = self.add_weight(
                shape=width, initializer="zeros", name="offset", autocast=False
            )

    def call(self, x: Any, update: Any = None) -> tuple[Any, Any]:
        """Returns (norm(x + update), x + update); `update` None stands for nothing to add."""
        scale = self.scale
        if scale is None:  # the operators that norms become ask for one
            scale = ops.constant(f"ones_{self.width}", np.ones(self.width, "float32"))
        if self.kind == "rms":
            scale = scale + 1.0 if self.unit_offset else scale
            if update is None:
                return ops.rms_norm(x, scale, self.epsilon), x
            return ops.add_rms_norm(x, update, scale, self.epsilon)
        if update is None:
            return ops.layer_norm(x, scale, self.offset, self.epsilon), x
        return ops.add_layer_norm(x, update, scale, self.offset, self.epsilon)


class HeadNorm(keras.layers.Layer):
    """Norm of queries or keys, whose heads lie side by side: [B, S, H * D] -> the same.

    Weights: those of one `Norm`, or scale [H, D] and offset [H, D] where each head has its own.

    Args:
        config: The facts.
        num_heads: H.
    """

    def __init__(self, config: TransformerConfig, num_heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.num_heads = num_heads
        self.scope = config.qk_norm_scope
        own = self.scope == "each_head"
        self.norm = Norm(
            config.qk_norm,
            config.norm_epsilon,
            use_bias=bool(config.qk_norm_bias) and not own,
            unit_offset=config.norm_unit_offset and not own,
            use_scale=config.norm_scale and not own,
            name="norm",
        )

    def build(self, input_shape: Any = None) -> None:
        config = self.config
        width = config.head_dim * (self.num_heads if self.scope == "all" else 1)
        self.norm.build((None, None, width))
        self.scale = self.offset = None
        if self.scope != "each_head":
            return
        shape, first = (self.num_heads, width), "zeros" if config.norm_unit_offset else "ones"
        if config.norm_scale:
            self.scale = self.add_weight(
                shape=shape, initializer=first, name="scale", autocast=False
            )
        if config.qk_norm_bias and config.qk_norm == "layer":
            self.offset = self.add_weight(
                shape=shape, initializer="zeros", name="offset", autocast=False
            )

    def call(self, x: Any) -> Any:
        if self.scope == "all":
            return self.norm(x)[0]
        heads = ops.reshape(x, (0, 0, self.num_heads, self.config.head_dim))
        heads = self.norm(heads)[0]
        if self.scale is not None:
            scale = self.scale + 1.0 if self.config.norm_unit_offset else self.scale
            heads = heads * kops.cast(scale, heads.dtype)
        if self.offset is not None:
            heads = heads + kops.cast(self.offset, heads.dtype)
        return ops.reshape(heads, (0, 0, x.shape[-1]))
