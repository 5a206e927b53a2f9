"""What a Transformer is, as facts: one frozen dataclass per architecture. Fields never name a
model.
"""

from dataclasses import fields
from typing import Any, Literal

from zoo.config import from_mapping, frozen, to_mapping
from zoo.errors import ConfigError

Activation = Literal["gelu", "gelu_tanh", "relu", "silu", "tanh"]


@frozen
class TransformerConfig:
    """Facts that all Transformers share.

    Attributes:
        vocab_size: Tokens known to the embedding.
        hidden_dim: Width of the residual stream.
        num_layers: Blocks (of the encoder, in an encoder-decoder).
        num_heads: Query heads of each attention.
        num_kv_heads: Key and value heads (grouped-query attention); None: as `num_heads`.
        head_dim: Width of a head; None: hidden_dim / num_heads.
        intermediate_dim: Inner width of the feed-forward layers; None: 4 hidden_dim.
        max_length: Longest text, in tokens, that the positions allow.
        activation: Of the feed-forward layers.
        gated: Feed-forward is (activation(x W1) * x W3) W2 (Shazeer, 2020).
        norm: Layer or root-mean-square norm.
        norm_position: Before a sub-layer, after its residual sum, or both before and after a sub-
            layer ("sandwich").
        norm_epsilon: Added to the variance.
        parallel_residual: Attention and feed-forward read the same input and are added together.
        positions: How order enters: added to the embeddings (learned, sinusoidal), turning queries
            and keys (rotary), added to the scores (alibi, relative), or not at all.
        rotary_base: Base of the rotary wavelengths.
        rotary_fraction: Part of each head that is turned.
        rotary_interleaved: Pairs are neighbouring features, not halves.
        relative_buckets: Buckets of T5's relative bias.
        relative_max_distance: Distances beyond share the last bucket.
        attention_bias: Query, key and value projections have a bias.
        projection_bias: The other projections (attention output, feed-forward) have a bias.
        norm_bias: Layer norms have an offset.
        attention_scale: Factor on the scores; None: head_dim ** -0.5.
        attention_softcap: Scores become c tanh(scores / c).
        logit_softcap: The language model's logits likewise.
        qk_norm: Norm of each query and key head before the positions enter.
        window: Local attention: positions back that are seen (to each side, in an encoder).
        global_every: With `window`, every n-th layer (the first of them layer 0) sees everything;
            None: none does.
        embedding_norm: A norm follows the embeddings.
        embedding_scale: Factor on the token embeddings; None: 1.
        final_norm: A norm follows the last block; None: unless norm_position is "post".
        token_types: Segment embeddings (BERT); 0: none.
        tie_embeddings: The language model's head is the token embedding.
        dropout: After embeddings and sub-layers.
        attention_dropout: On the attention weights.
        initializer_range: Standard deviation of the initial weights.
        pad_token_id: Id of padding; bos_token_id and eos_token_id: of begin and end, if any.
        bos_token_id: See `pad_token_id`.
        eos_token_id: See `pad_token_id`.
    """

    vocab_size: int
    hidden_dim: int = 256
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int | None = None
    head_dim: int | None = None
    intermediate_dim: int | None = None
    max_length: int = 512
    activation: Activation = "gelu"
    gated: bool = False
    norm: Literal["layer", "rms"] = "layer"
    norm_position: Literal["pre", "post", "sandwich"] = "pre"
    norm_epsilon: float = 1e-5
    parallel_residual: bool = False
    positions: Literal["learned", "sinusoidal", "rotary", "alibi", "relative", "none"] = "learned"
    rotary_base: float = 10000.0
    rotary_fraction: float = 1.0
    rotary_interleaved: bool = False
    relative_buckets: int = 32
    relative_max_distance: int = 128
    attention_bias: bool = True
    projection_bias: bool = True
    norm_bias: bool = True
    attention_scale: float | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    qk_norm: Literal["layer", "rms"] | None = None
    window: int | None = None
    global_every: int | None = None
    embedding_norm: bool = False
    embedding_scale: float | None = None
    final_norm: bool | None = None
    token_types: int = 0
    tie_embeddings: bool = True
    dropout: float = 0.1
    attention_dropout: float = 0.0
    initializer_range: float = 0.02
    pad_token_id: int = 0
    bos_token_id: int | None = None
    eos_token_id: int | None = None

    def __post_init__(self) -> None:
        def derive(name: str, value: Any) -> None:
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)

        for name in ("vocab_size", "hidden_dim", "num_layers", "num_heads", "max_length"):
            self._require(name, getattr(self, name) > 0, "must be positive")
        derive("num_kv_heads", self.num_heads)
        self._require(
            "head_dim",
            self.head_dim is not None or self.hidden_dim % self.num_heads == 0,
            f"must be given where hidden_dim ({self.hidden_dim}) is no multiple of num_heads "
            f"({self.num_heads})",
        )
        derive("head_dim", self.hidden_dim // self.num_heads)
        derive("intermediate_dim", 4 * self.hidden_dim)
        derive("final_norm", self.norm_position != "post")
        self._require(
            "num_kv_heads",
            self.num_kv_heads > 0 and self.num_heads % self.num_kv_heads == 0,
            f"must divide num_heads ({self.num_heads})",
        )
        self._require("head_dim", self.head_dim > 0, "must be positive")
        derive("attention_scale", self.head_dim**-0.5)
        self._require("intermediate_dim", self.intermediate_dim > 0, "must be positive")
        for name in ("norm_epsilon", "rotary_base", "initializer_range"):
            self._require(name, getattr(self, name) > 0, "must be positive")
        self._require("token_types", self.token_types >= 0, "must not be negative")
        self._require(
            "parallel_residual",
            not (self.parallel_residual and self.norm_position != "pre"),
            f'needs norm_position="pre", not {self.norm_position!r}',
        )
        self._require("rotary_fraction", 0 < self.rotary_fraction <= 1, "must be in (0, 1]")
        if self.positions == "rotary":
            self._require(
                "rotary_fraction",
                self.rotary_dim >= 2 and self.rotary_dim % 2 == 0,
                f"must turn an even number of each head's {self.head_dim} features, "
                f"not {self.rotary_dim}",
            )
        self._require("relative_buckets", self.relative_buckets >= 4, "must be at least 4")
        self._require(
            "relative_max_distance",
            self.relative_max_distance > self.relative_buckets // 2,
            f"must be above half of relative_buckets ({self.relative_buckets})",
        )
        self._require("window", self.window is None or self.window > 0, "must be positive")
        self._require(
            "global_every",
            self.global_every is None or (self.window is not None and self.global_every > 1),
            "needs window, and must be above 1",
        )
        for name in ("attention_softcap", "logit_softcap", "attention_scale"):
            value = getattr(self, name)
            self._require(name, value is None or value > 0, "must be positive")
        for name in ("dropout", "attention_dropout"):
            self._require(name, 0 <= getattr(self, name) < 1, "must be in [0, 1)")
        for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"):
            value = getattr(self, name, None)
            self._require(
                name,
                value is None or 0 <= value < self.vocab_size,
                f"must be an id below vocab_size ({self.vocab_size})",
            )

    def _require(self, name: str, holds: bool, reason: str) -> None:
        if not holds:
            raise ConfigError(f"{name} = {getattr(self, name, None)!r}: it {reason}")

    @property
    def rotary_dim(self) -> int:
        """Features of each head that rotary positions turn."""
        return int(self.head_dim * self.rotary_fraction)

    def layer_window(self, index: int) -> int | None:
        """The window of layer `index`, None where it sees everything."""
        if self.global_every is not None and index % self.global_every == 0:
            return None
        return self.window


@frozen
class EncoderConfig(TransformerConfig):
    """An encoder: every position sees the whole text."""


@frozen
class DecoderConfig(TransformerConfig):
    """A decoder: every position sees those before it."""


@frozen
class EncoderDecoderConfig(TransformerConfig):
    """An encoder and a decoder that also attends to the encoder's output.

    Attributes:
        num_decoder_layers: Blocks of the decoder; None: as `num_layers`.
        decoder_start_token_id: What the decoder's text begins with.
        share_embeddings: One token embedding for both sides.
        max_target_length: Longest decoder text; None: as `max_length`.
    """

    num_decoder_layers: int | None = None
    decoder_start_token_id: int = 0
    share_embeddings: bool = True
    max_target_length: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (
            ("num_decoder_layers", self.num_layers),
            ("max_target_length", self.max_length),
        ):
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
            self._require(name, getattr(self, name) > 0, "must be positive")


ARCHITECTURES: dict[str, type[TransformerConfig]] = {
    "encoder": EncoderConfig,
    "decoder": DecoderConfig,
    "encoder-decoder": EncoderDecoderConfig,
}


def architecture_of(config: TransformerConfig) -> str:
    """The name of a config's architecture, as recipes and manifests call it."""
    for name, cls in ARCHITECTURES.items():
        if type(config) is cls:
            return name
    raise ConfigError(f"{type(config).__name__} is not one of {sorted(ARCHITECTURES)}")


def config_to_mapping(config: TransformerConfig) -> dict[str, Any]:
    """A config as plain data, with its architecture's name."""
    return {"architecture": architecture_of(config), **to_mapping(config)}


def config_from_mapping(mapping: dict[str, Any], where: str = "config") -> TransformerConfig:
    """The config that `config_to_mapping` wrote, or that a recipe states."""
    values = dict(mapping)
    name = values.pop("architecture", None)
    if name not in ARCHITECTURES:
        raise ConfigError(
            f"{where}.architecture = {name!r}: expected one of {sorted(ARCHITECTURES)}"
        )
    return from_mapping(ARCHITECTURES[name], values, where)


def fact_names(architecture: str) -> list[str]:
    """The names of the facts that describe `architecture`."""
    return [field.name for field in fields(ARCHITECTURES[architecture])]
