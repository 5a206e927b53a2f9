"""Published shapes of models that have no checkpoint form: facts to build, count and train from.

Models with one are presets of their family (`zoo.families`). `zoo.checkpoints.count` counts a
shape's parameters without allocating them.
"""

from dataclasses import dataclass

from zoo.backbones.config import DecoderConfig, EncoderDecoderConfig, TransformerConfig


@dataclass(frozen=True)
class Shape:
    """A published model's facts.

    Attributes:
        config: The facts.
        task: What it was published for.
        parameters: As published, rounded there.
        source: The paper.
    """

    config: TransformerConfig
    task: str
    parameters: int
    source: str


def _transformer(width: int, heads: int, dropout: float, parameters: int) -> Shape:
    """Table 3 of Vaswani et al. (2017): post-norm, sinusoids, one embedding for both sides and the
    head, 37,000 byte pairs (English-German); epsilon and the longest text are tensor2tensor's.
    """
    config = EncoderDecoderConfig(
        vocab_size=37000,
        hidden_dim=width,
        num_layers=6,
        num_heads=heads,
        intermediate_dim=4 * width,
        max_length=256,
        activation="relu",
        norm_position="post",
        norm_epsilon=1e-6,
        positions="sinusoidal",
        sinusoid_form="interleaved",
        embedding_scale=width**0.5,
        dropout=dropout,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    source = "https://arxiv.org/abs/1706.03762"
    return Shape(config, "text2text-generation", parameters, source)


def _gpt_3(width: int, layers: int, heads: int, parameters: int) -> Shape:
    """Table 2.1 of Brown et al. (2020), its sizes rounded less in table D.1: GPT-2's form, every
    second layer banded.

    Heads times their width is the width of the states: the table's 24 heads of the 1.3B model and
    its 5140 features of the 13B model do not give the paper's own parameter counts, 16 heads and
    5120 features do. It does not say how wide the band is; 256 is what GPT-Neo took.
    """
    config = DecoderConfig(
        vocab_size=50257,
        hidden_dim=width,
        num_layers=layers,
        num_heads=heads,
        max_length=2048,
        activation="gelu_tanh",
        window=256,
        global_layers=tuple(range(0, layers, 2)),
        pad_token_id=50256,
        bos_token_id=50256,
        eos_token_id=50256,
    )
    return Shape(config, "text-generation", parameters, "https://arxiv.org/abs/2005.14165")


TURING_NLG = DecoderConfig(
    vocab_size=50257,
    hidden_dim=4256,
    num_layers=78,
    num_heads=28,
    max_length=1024,
    activation="gelu_tanh",
    pad_token_id=50256,
    bos_token_id=50256,
    eos_token_id=50256,
)
"""Layers, width and heads as published in 2020; the rest, which was not, is GPT-2's."""

SHAPES: dict[str, Shape] = {
    "transformer-base": _transformer(512, 8, 0.1, 65_000_000),
    "transformer-big": _transformer(1024, 16, 0.3, 213_000_000),
    "gpt-3-125m": _gpt_3(768, 12, 12, 125_000_000),
    "gpt-3-350m": _gpt_3(1024, 24, 16, 356_000_000),
    "gpt-3-760m": _gpt_3(1536, 24, 16, 760_000_000),
    "gpt-3-1.3b": _gpt_3(2048, 24, 16, 1_320_000_000),
    "gpt-3-2.7b": _gpt_3(2560, 32, 32, 2_650_000_000),
    "gpt-3-6.7b": _gpt_3(4096, 32, 32, 6_660_000_000),
    "gpt-3-13b": _gpt_3(5120, 40, 40, 12_850_000_000),
    "gpt-3-175b": _gpt_3(12288, 96, 96, 174_600_000_000),
    "turing-nlg": Shape(
        TURING_NLG,
        "text-generation",
        17_000_000_000,
        "https://www.microsoft.com/en-us/research/blog/turing-nlg-a-17-billion-parameter-language-model-by-microsoft/",
    ),
}
