"""Gemma 2 (Gemma Team, 2024): norms on both sides, soft caps, every second layer local; model card
google/gemma-2-2b.
"""

from typing import Any

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import Fact, Unused, activation, inherited
from zoo.checkpoints.family import Family, Preset
from zoo.checkpoints.rotary import rotary
from zoo.checkpoints.table import norm
from zoo.checkpoints.windows import layer_windows
from zoo.families import gemma, llama

FIXED = {**gemma.FIXED, "norm_position": "sandwich"}
SIZES = (
    *inherited(
        gemma.SIZES,
        hidden_size=2304,
        num_hidden_layers=26,
        num_attention_heads=8,
        num_key_value_heads=4,
        intermediate_size=9216,
    ),
    activation("hidden_activation", "gelu_pytorch_tanh"),
    Unused(("hidden_act",)),
    gemma.scaled(2304),
    gemma.CAUSAL,
    llama.attention_biases(),
    Fact(
        "attention_scale",
        "query_pre_attn_scalar",
        256,
        lambda value: value**-0.5,
        lambda scale: round(scale**-2),
    ),
)
BLOCK, LAYER = llama.BLOCK, llama.LAYER
NORMS = (
    *norm(f"{BLOCK}/attention_norm", f"{LAYER}.input_layernorm"),
    *norm(f"{BLOCK}/attention_post_norm", f"{LAYER}.post_attention_layernorm"),
    *norm(f"{BLOCK}/feed_forward_norm", f"{LAYER}.pre_feedforward_layernorm"),
    *norm(f"{BLOCK}/feed_forward_post_norm", f"{LAYER}.post_feedforward_layernorm"),
)
ROWS = (*llama.ENDS, *NORMS, *llama.ATTENTION, *llama.FEED_FORWARD)


def gemma_2(
    parameters: int,
    width: int,
    inner: int,
    layers: int,
    heads: tuple[int, int],
    **given: Any,
) -> Preset:
    """A published size."""
    return Preset(
        {
            "hidden_size": width,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads[0],
            "num_key_value_heads": heads[1],
            **given,
        },
        parameters,
        "text-generation",
    )


FAMILY = Family(
    model_type="gemma2",
    config=DecoderConfig,
    fixed=FIXED,
    items=(
        *SIZES,
        layer_windows(4096, lambda reader, i: i % 2 == 1),
        Fact("attention_softcap", "attn_logit_softcapping", 50.0),
        Fact("logit_softcap", "final_logit_softcapping", 30.0),
        Unused(("sliding_window_size",)),
        rotary(),
        gemma.TOKENS,
    ),
    rows=ROWS,
    forms=llama.forms("Gemma2", gemma.NO_QUESTIONS),
    prefix="model",
    presets={
        "gemma-2-2b": gemma_2(2_614_341_888, 2304, 9216, 26, (8, 4)),
        "gemma-2-9b": gemma_2(9_241_705_984, 3584, 14336, 42, (16, 8)),
        "gemma-2-27b": gemma_2(
            27_227_128_320, 4608, 36864, 46, (32, 16), head_dim=128, query_pre_attn_scalar=144
        ),
    },
    source="https://arxiv.org/abs/2408.00118",
)
