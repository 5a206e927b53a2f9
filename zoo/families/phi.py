"""Phi (Gunasekar et al., 2023; Li et al., 2023): attention and feed-forward in parallel behind one
norm, partly rotary; model card microsoft/phi-2.
"""

from typing import Any

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import Fact, Reader, Rule, Unused, activation, special_tokens
from zoo.checkpoints.family import Family, Preset
from zoo.checkpoints.rotary import rotary
from zoo.checkpoints.table import linear, norm, row
from zoo.families import llama

BLOCK, LAYER = "decoder/block_{i}", "layers.{i}"
ROWS = (
    row("decoder/embeddings/tokens/table", "embed_tokens.weight", aliases=["lm_head.weight"]),
    *norm(f"{BLOCK}/attention_norm", f"{LAYER}.input_layernorm"),
    *linear(f"{BLOCK}/attention/query", f"{LAYER}.self_attn.q_proj"),
    *linear(f"{BLOCK}/attention/key", f"{LAYER}.self_attn.k_proj"),
    *linear(f"{BLOCK}/attention/value", f"{LAYER}.self_attn.v_proj"),
    *linear(f"{BLOCK}/attention/output", f"{LAYER}.self_attn.dense"),
    *norm(f"{BLOCK}/attention/query_norm/norm", f"{LAYER}.self_attn.q_layernorm"),
    *norm(f"{BLOCK}/attention/key_norm/norm", f"{LAYER}.self_attn.k_layernorm"),
    *linear(f"{BLOCK}/feed_forward/up", f"{LAYER}.mlp.fc1"),
    *linear(f"{BLOCK}/feed_forward/down", f"{LAYER}.mlp.fc2"),
    *norm("decoder/final_norm", "final_layernorm"),
)


def decode_qk_norm(reader: Reader) -> dict[str, Any]:
    """`qk_layernorm` is a switch."""
    return {"qk_norm": "layer" if reader.get("qk_layernorm", False) else None}


QK_NORM = Rule(decode_qk_norm, lambda config: {"qk_layernorm": config.qk_norm is not None})
PHI_2 = {
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 32,
    "partial_rotary_factor": 0.4,
    "bos_token_id": 50256,
    "eos_token_id": 50256,
}

FAMILY = Family(
    model_type="phi",
    config=DecoderConfig,
    fixed={
        "positions": "rotary",
        "parallel_residual": True,
        "shared_norm": True,
        "logit_bias": True,
    },
    items=(
        Fact("vocab_size", "vocab_size", 51200),
        Fact("hidden_dim", "hidden_size", 2048),
        Fact("num_layers", "num_hidden_layers", 24),
        Fact("num_heads", "num_attention_heads", 32),
        Fact("num_kv_heads", "num_key_value_heads", None),
        Fact("intermediate_dim", "intermediate_size", 8192),
        Fact("max_length", "max_position_embeddings", 2048),
        Fact("norm_epsilon", "layer_norm_eps", 1e-5),
        Fact("dropout", "resid_pdrop", 0.0),
        Fact("attention_dropout", "attention_dropout", 0.0),
        activation("hidden_act", "gelu_new"),
        Fact("tie_embeddings", "tie_word_embeddings", False),
        QK_NORM,
        rotary(fraction=0.5),
        Unused(("embd_pdrop",)),
        special_tokens(bos=1, eos=2),
    ),
    rows=ROWS,
    forms=llama.forms("Phi", without=("question-answering",)),
    prefix="model",
    ignored=(r"\.rotary_emb\.inv_freq$",),
    presets={
        "phi-1_5": Preset({}, 1_418_270_720, "text-generation"),
        "phi-2": Preset(PHI_2, 2_779_683_840, "text-generation"),
    },
    source="https://arxiv.org/abs/2306.11644",
)
