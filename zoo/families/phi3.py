"""Phi-3 and Phi-4 (Abdin et al., 2024): Llama with fused projections; model card
microsoft/Phi-3-mini-4k-instruct.
"""

from typing import Any

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import Fact, Reader, Rule, Unused, inherited, special_tokens
from zoo.checkpoints.family import Family, Preset
from zoo.checkpoints.rotary import rotary
from zoo.checkpoints.table import attention_sizes, fused, linear, qkv
from zoo.families import llama

BLOCK, LAYER = llama.BLOCK, llama.LAYER
ROTARY = rotary(fraction=1.0)


def _decode_rotary(reader: Reader) -> dict[str, Any]:
    facts = ROTARY.decode(reader)
    scaling = facts["rotary_scaling"]
    if scaling is not None and scaling.kind != "longrope":
        raise reader.refuse("rope_scaling", "is not supported, expected longrope in this family")
    return facts


def _encode_rotary(config: Any) -> dict[str, Any]:
    written = ROTARY.encode(config)
    if config.rotary_fraction == 1.0:
        del written["partial_rotary_factor"]
    if config.rotary_scaling is not None:
        written["original_max_position_embeddings"] = config.rotary_scaling.original_length
    return written


def halves(config: Any) -> list[int]:
    """Widths of gate and up."""
    return [config.intermediate_dim, config.intermediate_dim]


MEDIUM = {
    "hidden_size": 5120,
    "intermediate_size": 17920,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "num_key_value_heads": 10,
}

FAMILY = Family(
    model_type="phi3",
    config=DecoderConfig,
    fixed={**llama.FIXED, "attention_bias": False, "projection_bias": False},
    items=(
        *inherited(
            llama.SIZES,
            vocab_size=32064,
            hidden_size=3072,
            intermediate_size=8192,
            max_position_embeddings=4096,
            rms_norm_eps=1e-5,
        ),
        Fact("dropout", "resid_pdrop", 0.0),
        Fact("window", "sliding_window", None),
        Unused(("embd_pdrop", "attention_bias")),
        Rule(_decode_rotary, _encode_rotary),
        special_tokens(pad=32000, bos=1, eos=32000),
    ),
    rows=(
        *llama.ENDS,
        *llama.NORMS,
        *fused(qkv(BLOCK), f"{LAYER}.self_attn.qkv_proj", attention_sizes),
        *linear(f"{BLOCK}/attention/output", f"{LAYER}.self_attn.o_proj"),
        *fused(
            [f"{BLOCK}/feed_forward/{name}" for name in ("gate", "up")],
            f"{LAYER}.mlp.gate_up_proj",
            halves,
        ),
        *linear(f"{BLOCK}/feed_forward/down", f"{LAYER}.mlp.down_proj"),
    ),
    forms=llama.forms("Phi3", ("question-answering",)),
    prefix="model",
    presets={
        "phi-3-mini-4k": Preset({"sliding_window": 2047}, 3_821_079_552, "text-generation"),
        "phi-3-medium-4k": Preset(
            {**MEDIUM, "sliding_window": 2047}, 13_960_238_080, "text-generation"
        ),
        "phi-4": Preset(
            {
                **MEDIUM,
                "vocab_size": 100352,
                "max_position_embeddings": 16384,
                "rope_theta": 250000.0,
                "bos_token_id": 100257,
                "eos_token_id": 100265,
                "pad_token_id": 100349,
            },
            14_659_507_200,
            "text-generation",
        ),
    },
    source="https://arxiv.org/abs/2404.14219",
)
