"""Published shapes of models that have no checkpoint form: facts to build, count and train from.

Models with one are presets of their family (`zoo.families`). `zoo.checkpoints.count` counts a
shape's parameters without allocating them.
"""

from dataclasses import dataclass

from zoo.backbones.config import EncoderDecoderConfig, TransformerConfig


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


SHAPES: dict[str, Shape] = {
    "transformer-base": _transformer(512, 8, 0.1, 65_000_000),
    "transformer-big": _transformer(1024, 16, 0.3, 213_000_000),
}
