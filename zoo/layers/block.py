"""One Transformer block: attention, optional cross attention and feed-forward around the residual
stream.
"""

from typing import Any

import keras

from zoo.backbones.config import TransformerConfig
from zoo.layers.attention import Attention, KeyValue
from zoo.layers.feed_forward import Experts, FeedForward
from zoo.layers.norm import Norm
from zoo.layers.span import Span


class Block(keras.layers.Layer):
    """A block of pre-norm, post-norm, sandwich-norm, output-norm or parallel form.

    A pre-norm block takes and returns the residual stream with the update that is still to be added
    to it, so that the sum and the norm that follows are one primitive:

        pre       normed, x = norm(x + update); update = layer(normed)
        sandwich  the same, with update = post_norm(layer(normed))
        output    x = x + update; update = post_norm(layer(x))
        parallel  update = attention(norm1(x)) + feed_forward(norm2(x))
        post      x = norm(x + layer(x)); the update is None

    Args:
        config: The facts.
        index: The block's number, which decides its window.
        cross: With attention to an encoder's states.
    """

    def __init__(
        self, config: TransformerConfig, index: int, cross: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.config = config
        layers: dict[str, keras.layers.Layer] = {
            "attention": Attention(config, config.layer_window(index), name="attention")
        }
        if cross:
            layers["cross_attention"] = Attention(config, name="cross_attention")
        routed = config.num_experts and index not in config.dense_layers
        layers["feed_forward"] = (Experts if routed else FeedForward)(config, name="feed_forward")
        self.attention = layers["attention"]
        self.cross_attention = layers.get("cross_attention")
        self.feed_forward = layers["feed_forward"]
        self.norms = {}
        if config.norm_position != "output":
            self.norms = {name: Norm.of(config, f"{name}_norm") for name in layers}
        if config.shared_norm:
            del self.norms["feed_forward"]
        if index == 0 and not config.first_norm:
            del self.norms["attention"]
        self.post_norms = {}
        if config.norm_position in ("sandwich", "output"):
            self.post_norms = {name: Norm.of(config, f"{name}_post_norm") for name in layers}
        self.dropout = (
            keras.layers.Dropout(config.dropout, name="dropout") if config.dropout else None
        )

    def build(self, input_shape: tuple) -> None:
        width = (None, None, self.config.hidden_dim)
        children = (self.attention, self.cross_attention, self.feed_forward)
        for child in (*children, *self.norms.values(), *self.post_norms.values()):
            if child is not None:
                child.build(width)

    def call(
        self,
        x: Any,
        update: Any,
        span: Span,
        past: KeyValue | None = None,
        memory: KeyValue | None = None,
        memory_span: Span | None = None,
        angles: tuple[Any, Any] | None = None,
        bias: Any = None,
        distances: tuple[Any, Any] | None = None,
        training: bool | None = None,
    ) -> tuple[Any, Any, KeyValue | None]:
        """Returns (x, update, present)."""

        def attend(normed: Any) -> tuple[Any, KeyValue | None]:
            return self.attention(
                normed,
                span=span,
                past=past,
                angles=angles,
                bias=bias,
                distances=distances,
                training=training,
            )

        def add(name: str, x: Any, update: Any) -> tuple[Any, Any]:
            """What the layer of this name reads, and the residual stream."""
            if name in self.norms:
                return self.norms[name](x, update=update)
            x = x if update is None else x + update
            return x, x

        def attend_memory(normed: Any) -> Any:
            return self.cross_attention(normed, span=memory_span, memory=memory, training=training)[
                0
            ]

        def finish(name: str, y: Any) -> Any:
            if name in self.post_norms:
                y = self.post_norms[name](y)[0]
            return y if self.dropout is None else self.dropout(y, training=training)

        if self.config.norm_position == "post":
            y, present = attend(x)
            x = self.norms["attention"](x, update=finish("attention", y))[0]
            if self.cross_attention is not None:
                y = attend_memory(x)
                x = self.norms["cross_attention"](x, update=finish("cross_attention", y))[0]
            y = self.feed_forward(x)
            return self.norms["feed_forward"](x, update=finish("feed_forward", y))[0], None, present
        normed, x = add("attention", x, update)
        y, present = attend(normed)
        update = finish("attention", y)
        if self.config.parallel_residual:
            if not self.config.shared_norm:
                normed = self.norms["feed_forward"](x)[0]
            return x, update + finish("feed_forward", self.feed_forward(normed)), present
        if self.cross_attention is not None:
            normed, x = add("cross_attention", x, update)
            update = finish("cross_attention", attend_memory(normed))
        normed, x = add("feed_forward", x, update)
        return x, finish("feed_forward", self.feed_forward(normed)), present
