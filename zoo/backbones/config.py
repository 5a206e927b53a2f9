"""What a Transformer is, as facts: one frozen dataclass per architecture. Fields never name a
model.
"""

from dataclasses import fields, replace
from typing import Any, Literal

from zoo.backbones import checks
from zoo.config import from_mapping, frozen, to_mapping
from zoo.errors import ConfigError

Activation = Literal["gelu", "gelu_sigmoid", "gelu_tanh", "relu", "relu_squared", "silu", "tanh"]


@frozen
class RotaryScaling:
    """How rotary wavelengths are stretched so that longer texts fit.

    "dynamic" and "longrope" depend on the longest text of a batch where it exceeds
    `original_length`. Cached keys stay as they were turned, so a text that grows past it step by
    step is read a little differently from one read at once.

    Attributes:
        kind: "linear" divides positions by `factor` (Chen et al., 2023); "dynamic" raises the base
            with the length of the text at hand beyond `original_length`; "llama3" divides low
            frequencies alone (Llama 3.1); "yarn" blends by frequency and sharpens the attention
            (Peng et al., 2023); "longrope" has a factor for each frequency (Ding et al., 2024).
        factor: Of the stretch.
        original_length: Longest text of the first training.
        low_frequency_factor: llama3: wavelengths above original_length / this are divided in full.
        high_frequency_factor: llama3: those below original_length / this are not.
        beta_fast: yarn: turns per original_length above which a frequency stays.
        beta_slow: yarn: turns below which it is divided in full.
        attention_factor: Factor on cosines and sines; None: as the paper of `kind` says.
        round_bounds: yarn: the bounds of the blend are rounded to whole features.
        short_factors: longrope: a factor for each frequency, texts up to original_length.
        long_factors: longrope: the same for longer texts.
    """

    kind: Literal["linear", "dynamic", "llama3", "yarn", "longrope"]
    factor: float = 1.0
    original_length: int | None = None
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    round_bounds: bool = True
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind != "linear" and self.original_length is None:
            raise ConfigError(f"rotary_scaling of kind {self.kind!r} needs original_length")
        if self.kind == "longrope" and not (self.short_factors and self.long_factors):
            raise ConfigError("rotary_scaling of kind 'longrope' needs short_ and long_factors")


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
        num_experts: Feed-forward layers that a router chooses from (mixture of experts); 0: one
            layer, no router.
        experts_per_token: How many of them compute each token.
        expert_dim: Inner width of an expert; None: as `intermediate_dim`.
        expert_weights: The weights of the chosen experts: "softmax_all" of the router's scores of
            all experts, "softmax_all_normalized" the same with sum 1, "softmax_chosen" over the
            chosen alone.
        expert_bias: Router and experts have biases.
        dense_layers: Numbers of the layers that have one feed-forward layer all the same.
        gate_limit: With `gated`, gate and value are clamped to it and combined as
            gate sigmoid(1.702 gate) (value + 1), as in gpt-oss; None: as `gated` says.
        norm: Layer or root-mean-square norm.
        norm_position: Before a sub-layer ("pre"), after its residual sum ("post"), before and after
            a sub-layer ("sandwich"), or after a sub-layer and before the sum ("output").
        norm_epsilon: Added to the variance.
        norm_unit_offset: The norms' scale is stored as its difference from 1 (Gemma).
        parallel_residual: Attention and feed-forward read the same input and are added together.
        shared_norm: With `parallel_residual`, both read the output of one norm.
        first_norm: The first block has a norm before its attention.
        shared_blocks: How many different blocks there are, each used for a run of layers (ALBERT);
            None: one for each layer.
        blocks_in_turn: With `shared_blocks`, so many neighbouring blocks share a run and take turns
            in it.
        positions: How order enters: added to the embeddings (learned, sinusoidal), turning queries
            and keys (rotary), or not so.
        position_bias: What is added to the scores: nothing, ALiBi's slopes, T5's learned bias per
            bucket of distance (relative), or DeBERTa's terms of content and distance
            (disentangled). "rounded_alibi" is ALiBi as Falcon has it: slope times the key's
            position, computed in bfloat16 and scaled as the scores are.
        position_offset: Row of the learned or sinusoidal table that belongs to the first position.
        sinusoid_form: Sines first and cosines behind them ("halves"), the same with the wavelengths
            of tensor2tensor, or taking turns ("interleaved").
        rotary_base: Base of the rotary wavelengths.
        rotary_fraction: Part of each head that is turned.
        rotary_interleaved: Pairs are neighbouring features, not halves.
        rotary_scaling: How the wavelengths are stretched for longer texts.
        local_rotary_base: Base in the layers with a window, where no stretching applies; None: as
            the other layers.
        unturned_layers: Numbers of the layers without rotary positions.
        relative_buckets: Buckets of the relative and, to each side, of the disentangled bias.
        relative_max_distance: Distances beyond share the last bucket; None: each bucket is one
            distance (disentangled only).
        disentangled_terms: Terms of the disentangled bias: the content of the query against the
            distance ("content_to_position"), that of the key against it ("position_to_content").
        distance_norm: A norm follows the disentangled table of distances.
        distance_projections: Its rows have query and key projections of their own; False: those of
            the text.
        attention_bias: Query, key and value projections have a bias.
        attention_output_bias: So has attention's output projection; None: as `projection_bias`.
        projection_bias: The other projections (attention output, feed-forward) have a bias.
        norm_bias: Layer norms have an offset.
        norm_scale: Norms have a scale; False: they leave mean 0 and variance 1 as they are.
        attention_scale: Factor on the scores; None: head_dim ** -0.5.
        attention_softcap: Scores become c tanh(scores / c).
        attention_sinks: Each head has a learned score that takes a share of the softmax.
        logit_softcap: The language model's logits likewise (c tanh(logits / c)).
        logit_scale: Factor on the states before the language model's head; None: 1.
        logit_bias: The language model's head has a bias; None: in a masked-language head.
        qk_norm: Norm of queries and keys before the positions enter.
        qk_norm_scope: One norm shared by all heads ("head"), one for each head ("each_head"), or
            one over all heads together ("all").
        qk_norm_bias: That norm has an offset, if a layer norm; None: as `norm_bias`.
        window: Local attention: positions back that are seen (to each side, in an encoder).
        global_layers: With `window`, numbers of the layers that see everything.
        embedding_dim: Width of the token embedding, which a linear map brings to `hidden_dim`;
            None: `hidden_dim` itself.
        embedding_projection: There is such a map; None: where `embedding_dim` is another width.
        embedding_projection_bias: It has a bias.
        embedding_projection_first: It comes before positions, segments and norm, not after.
        output_dim: Width of the states that leave the last block, to which a linear map without
            bias brings them; None: `hidden_dim`, without a map.
        ngram_lengths: n of the token n-grams that are embedded beside the tokens, each by its hash
            (encoders only: a cached step does not see the tokens before it).
        ngram_buckets: Rows of the table for each n.
        embedding_norm: A norm follows the embeddings.
        embedding_scale: Factor on the token embeddings; None: 1.
        final_norm: A norm follows the last block; None: unless norm_position is "post".
        token_types: Segment embeddings (BERT); 0: none.
        tie_embeddings: The language model's head is the token embedding.
        head_activation: Of the masked-language head; None: `activation`.
        head_bias: The dense layer of the masked-language head has a bias.
        dropout: After embeddings and sub-layers.
        token_dropout: Of whole tokens' embeddings.
        attention_dropout: On the attention weights.
        initializer_range: Standard deviation of the initial weights.
        pad_token_id: Id of padding; bos_token_id and eos_token_id: of begin and end, if any.
        bos_token_id: See `pad_token_id`.
        eos_token_id: See `pad_token_id`.
        stop_token_ids: Further ids that end a text.
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
    num_experts: int = 0
    experts_per_token: int = 2
    expert_dim: int | None = None
    expert_weights: Literal["softmax_all", "softmax_all_normalized", "softmax_chosen"] = (
        "softmax_all_normalized"
    )
    expert_bias: bool = False
    dense_layers: tuple[int, ...] = ()
    gate_limit: float | None = None
    norm: Literal["layer", "rms"] = "layer"
    norm_position: Literal["pre", "post", "sandwich", "output"] = "pre"
    norm_epsilon: float = 1e-5
    norm_unit_offset: bool = False
    parallel_residual: bool = False
    shared_norm: bool = False
    first_norm: bool = True
    shared_blocks: int | None = None
    blocks_in_turn: int = 1
    positions: Literal["learned", "sinusoidal", "rotary", "none"] = "learned"
    position_bias: Literal["alibi", "rounded_alibi", "relative", "disentangled"] | None = None
    position_offset: int = 0
    sinusoid_form: Literal["halves", "tensor2tensor", "interleaved"] = "halves"
    rotary_base: float = 10000.0
    rotary_fraction: float = 1.0
    rotary_interleaved: bool = False
    rotary_scaling: RotaryScaling | None = None
    local_rotary_base: float | None = None
    unturned_layers: tuple[int, ...] = ()
    relative_buckets: int = 32
    relative_max_distance: int | None = 128
    disentangled_terms: tuple[Literal["content_to_position", "position_to_content"], ...] = (
        "content_to_position",
        "position_to_content",
    )
    distance_norm: bool = True
    distance_projections: bool = False
    attention_bias: bool = True
    attention_output_bias: bool | None = None
    projection_bias: bool = True
    norm_bias: bool = True
    norm_scale: bool = True
    attention_scale: float | None = None
    attention_softcap: float | None = None
    attention_sinks: bool = False
    logit_softcap: float | None = None
    logit_scale: float | None = None
    logit_bias: bool | None = None
    qk_norm: Literal["layer", "rms"] | None = None
    qk_norm_scope: Literal["head", "each_head", "all"] = "head"
    qk_norm_bias: bool | None = None
    window: int | None = None
    global_layers: tuple[int, ...] = ()
    embedding_dim: int | None = None
    embedding_projection: bool | None = None
    embedding_projection_bias: bool = True
    embedding_projection_first: bool = False
    output_dim: int | None = None
    ngram_lengths: tuple[int, ...] = ()
    ngram_buckets: int = 30011
    embedding_norm: bool = False
    embedding_scale: float | None = None
    final_norm: bool | None = None
    token_types: int = 0
    tie_embeddings: bool = True
    head_activation: Activation | None = None
    head_bias: bool = True
    dropout: float = 0.1
    token_dropout: float = 0.0
    attention_dropout: float = 0.0
    initializer_range: float = 0.02
    pad_token_id: int = 0
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    stop_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        checks.complete(self)
        checks.check(self)

    @property
    def rotary_dim(self) -> int:
        """Features of each head that rotary positions turn."""
        return int(self.head_dim * self.rotary_fraction + 1e-6)  # a fraction may be a quotient

    def layer_window(self, index: int) -> int | None:
        """The window of layer `index`, None where it sees everything."""
        return None if index in self.global_layers else self.window


def _refuse_ngrams(config: TransformerConfig) -> None:
    reason = "is for encoders: a cached step does not see the tokens before it"
    checks.require(config, "ngram_lengths", not config.ngram_lengths, reason)


@frozen
class EncoderConfig(TransformerConfig):
    """An encoder: every position sees the whole text."""


@frozen
class DecoderConfig(TransformerConfig):
    """A decoder: every position sees those before it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_ngrams(self)


@frozen
class EncoderDecoderConfig(TransformerConfig):
    """An encoder and a decoder that also attends to the encoder's output.

    Attributes:
        num_decoder_layers: Blocks of the decoder; None: as `num_layers`.
        decoder_num_heads: Query heads of its attentions; None: as `num_heads`. As many of them
            share a key and value head as in the encoder.
        decoder_head_dim: Width of one; None: as `head_dim`, or hidden_dim / decoder_num_heads where
            the number of heads differs.
        decoder_intermediate_dim: Inner width of its feed-forward layers; None: as
            `intermediate_dim`.
        decoder_start_token_id: What the decoder's text begins with.
        share_embeddings: One token embedding for both sides.
        max_target_length: Longest decoder text; None: as `max_length`.
    """

    num_decoder_layers: int | None = None
    decoder_num_heads: int | None = None
    decoder_head_dim: int | None = None
    decoder_intermediate_dim: int | None = None
    decoder_start_token_id: int = 0
    share_embeddings: bool = True
    max_target_length: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_ngrams(self)
        heads, head_dim = self.decoder_num_heads or self.num_heads, self.head_dim
        if heads != self.num_heads and self.decoder_head_dim is None:
            checks.require(
                self,
                "decoder_num_heads",
                self.hidden_dim % heads == 0,
                f"must divide hidden_dim ({self.hidden_dim}) where decoder_head_dim is not given",
            )
            head_dim = self.hidden_dim // heads
        for name, value in (
            ("num_decoder_layers", self.num_layers),
            ("decoder_num_heads", self.num_heads),
            ("decoder_head_dim", head_dim),
            ("decoder_intermediate_dim", self.intermediate_dim),
            ("max_target_length", self.max_length),
        ):
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
            checks.require(self, name, getattr(self, name) > 0, "must be positive")
        checks.require(
            self,
            "output_dim",
            self.output_dim == self.hidden_dim,
            f"must be hidden_dim ({self.hidden_dim}) in an encoder-decoder",
        )
        checks.require(
            self,
            "decoder_num_heads",
            self.decoder_num_heads * self.num_kv_heads % self.num_heads == 0,
            f"must be a multiple of num_heads / num_kv_heads ({self.num_heads} / "
            f"{self.num_kv_heads})",
        )

    @property
    def decoder_side(self) -> "EncoderDecoderConfig":
        """The same facts with the decoder's sizes in the place of the encoder's."""
        own_scale = self.attention_scale != self.head_dim**-0.5
        own_experts = self.expert_dim != self.intermediate_dim
        return replace(
            self,
            num_heads=self.decoder_num_heads,
            num_kv_heads=self.decoder_num_heads * self.num_kv_heads // self.num_heads,
            head_dim=self.decoder_head_dim,
            intermediate_dim=self.decoder_intermediate_dim,
            attention_scale=self.attention_scale if own_scale else None,
            expert_dim=self.expert_dim if own_experts else None,
        )


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
