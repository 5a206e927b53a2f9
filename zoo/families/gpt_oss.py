"""gpt-oss (OpenAI, 2025): experts with clamped gates, attention sinks, every second layer local;
model card openai/gpt-oss-20b.
"""

from typing import Any

import numpy as np

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import Expect, Fact, Unused, inherited, special_tokens
from zoo.checkpoints.family import Family, Preset
from zoo.checkpoints.rotary import rotary
from zoo.checkpoints.table import Transform, linear, row
from zoo.checkpoints.windows import layer_windows
from zoo.families import llama

TURNS = Transform(
    "gate and up in turn",
    lambda arrays, _: [arrays[0][..., 0::2], arrays[0][..., 1::2]],
    lambda arrays, _: [np.stack(arrays, axis=-1).reshape(*arrays[0].shape[:-1], -1)],
)
BLOCK, LAYER = llama.BLOCK, llama.LAYER
FORWARD, MLP = f"{BLOCK}/feed_forward", f"{LAYER}.mlp"
EXPERTS = (
    *linear(f"{FORWARD}/router", f"{MLP}.router"),
    row([f"{FORWARD}/gate_kernel", f"{FORWARD}/up_kernel"], f"{MLP}.experts.gate_up_proj", TURNS),
    row([f"{FORWARD}/gate_bias", f"{FORWARD}/up_bias"], f"{MLP}.experts.gate_up_proj_bias", TURNS),
    row(f"{FORWARD}/down_kernel", f"{MLP}.experts.down_proj"),
    row(f"{FORWARD}/down_bias", f"{MLP}.experts.down_proj_bias"),
)
YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}


def gpt_oss(parameters: int, layers: int, experts: int) -> Preset:
    """A published size."""
    given: dict[str, Any] = {
        "num_hidden_layers": layers,
        "num_local_experts": experts,
        "eos_token_id": 200002,
        "pad_token_id": 199999,
    }
    return Preset(given, parameters, "text-generation")


FAMILY = Family(
    model_type="gpt_oss",
    config=DecoderConfig,
    fixed={
        **llama.FIXED,
        "expert_weights": "softmax_chosen",
        "expert_bias": True,
        "attention_sinks": True,
    },
    items=(
        *inherited(
            llama.SIZES,
            vocab_size=201088,
            hidden_size=2880,
            intermediate_size=2880,
            num_hidden_layers=36,
            num_attention_heads=64,
            num_key_value_heads=8,
            head_dim=64,
            max_position_embeddings=131072,
            rms_norm_eps=1e-5,
        ),
        Fact("num_experts", "num_local_experts", 128, also=("num_experts",)),
        Fact("experts_per_token", "num_experts_per_tok", 4, also=("experts_per_token",)),
        Fact("gate_limit", "swiglu_limit", 7.0),
        Expect("swiglu_alpha", (1.702,)),
        Unused(("initial_context_length",)),
        layer_windows(128, lambda reader, i: i % 2 == 1),
        Unused(("sliding_window",)),  # where every layer sees everything
        llama.attention_biases(True),
        rotary(150000.0, scaling=YARN),
        special_tokens(),
    ),
    rows=(
        *llama.ENDS,
        *llama.NORMS,
        *llama.ATTENTION,
        row(f"{BLOCK}/attention/sinks", f"{LAYER}.self_attn.sinks"),
        *EXPERTS,
    ),
    forms=llama.forms("GptOss", ("question-answering",)),
    prefix="model",
    presets={
        "gpt-oss-20b": gpt_oss(20_914_757_184, 24, 32),
        "gpt-oss-120b": gpt_oss(116_829_156_672, 36, 128),
    },
    source="https://arxiv.org/abs/2508.10925",
)
