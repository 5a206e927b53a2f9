"""GPT (Radford et al., 2018): post-norm decoder with learned positions; model card openai-gpt."""

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import (
    WRITTEN_ACTIVATIONS,
    Fact,
    Unused,
    inherited,
    special_tokens,
)
from zoo.checkpoints.family import Family, Preset
from zoo.checkpoints.table import row
from zoo.families import gpt2

ACTIVATIONS = {"gelu": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu"}
"""Its "gelu" is the tanh approximation."""


def _read(name: str) -> str:
    if name not in ACTIVATIONS:
        raise ValueError(f"expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _write(name: str) -> str:
    written = {"gelu_tanh": "gelu", "relu": "relu", "silu": "silu"}
    return written.get(name, WRITTEN_ACTIVATIONS[name])


FAMILY = Family(
    model_type="openai-gpt",
    config=DecoderConfig,
    fixed={"norm_position": "post"},
    items=(
        *inherited(gpt2.SIZES, vocab_size=40478, n_positions=512),
        Fact("activation", "afn", "gelu", _read, _write),
        Fact("tie_embeddings", "tie_word_embeddings", True),
        Unused(("n_special", "predict_special_tokens")),
        special_tokens(),
    ),
    rows=(
        row("decoder/embeddings/tokens/table", "tokens_embed.weight", aliases=["lm_head.weight"]),
        row("decoder/embeddings/positions/table", "positions_embed.weight"),
        *gpt2.BLOCKS,
    ),
    forms=gpt2.forms(
        "OpenAIGPT", "LMHeadModel", without=("token-classification", "question-answering")
    ),
    prefix="transformer",
    ignored=(r"\.attn\.bias$", r"(^|\.)position_ids$"),
    presets={
        "openai-gpt": Preset({}, 116_534_784, "text-generation"),
    },
    source="https://cdn.openai.com/research-covers/language-unsupervised/language_understanding_paper.pdf",
)
