"""Gemma (Gemma Team, 2024): scaled embeddings, wide heads, norms stored as scale less 1; model card
google/gemma-2b.
"""

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import (
    ACTIVATIONS,
    WRITTEN_ACTIVATIONS,
    Expect,
    Fact,
    Rule,
    Unused,
    inherited,
    special_tokens,
)
from zoo.checkpoints.family import Family, Preset
from zoo.checkpoints.rotary import rotary
from zoo.families import llama

FIXED = {**llama.FIXED, "norm_unit_offset": True}
SIZES = inherited(
    llama.SIZES,
    without=("hidden_act",),
    vocab_size=256000,
    hidden_size=3072,
    num_hidden_layers=28,
    num_attention_heads=16,
    num_key_value_heads=16,
    head_dim=256,
    intermediate_size=24576,
    max_position_embeddings=8192,
    tie_word_embeddings=True,
)


def scaled(default: int) -> Rule:
    """Embeddings are multiplied by the square root of their width."""
    return Rule(lambda reader: {"embedding_scale": reader.get("hidden_size", default) ** 0.5})


CAUSAL = Expect("use_bidirectional_attention", (False,), "Its encoder form is not in this zoo.")
TOKENS = special_tokens(pad=0, bos=2, eos=1)
NO_QUESTIONS = ("question-answering",)

FAMILY = Family(
    model_type="gemma",
    config=DecoderConfig,
    fixed=FIXED,
    items=(
        *SIZES,
        Fact(
            "activation",
            "hidden_act",
            "gelu_pytorch_tanh",
            # The first published files say gelu and mean its tanh approximation.
            lambda name: ACTIVATIONS["gelu_pytorch_tanh" if name == "gelu" else name],
            WRITTEN_ACTIVATIONS.__getitem__,
        ),
        Unused(("hidden_activation",)),
        scaled(3072),
        CAUSAL,
        llama.attention_biases(),
        rotary(),
        TOKENS,
    ),
    rows=llama.ROWS,
    forms=llama.forms("Gemma", NO_QUESTIONS),
    prefix="model",
    ignored=(r"\.rotary_emb\.inv_freq$",),
    presets={
        "gemma-2b": Preset(
            {
                "hidden_size": 2048,
                "intermediate_size": 16384,
                "num_hidden_layers": 18,
                "num_attention_heads": 8,
                "num_key_value_heads": 1,
            },
            2_506_172_416,
            "text-generation",
        ),
        "gemma-7b": Preset({}, 8_537_680_896, "text-generation"),
    },
    source="https://arxiv.org/abs/2403.08295",
)
