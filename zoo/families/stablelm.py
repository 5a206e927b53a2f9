"""StableLM (Bellagente et al., 2024): Llama's form with layer norms, partly rotary; the 12B model
has one norm for attention and feed-forward in parallel; model card stabilityai/stablelm-2-1_6b.
"""

from typing import Any

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import Fact, Reader, Rule, activation, special_tokens
from zoo.checkpoints.family import Family, Preset
from zoo.checkpoints.rotary import rotary
from zoo.checkpoints.table import STACKED, row
from zoo.families import llama, phi

BLOCK, LAYER = "decoder/block_{i}", "layers.{i}"
ROWS = (
    *llama.ROWS,
    row(
        f"{BLOCK}/attention/query_norm/scale",
        f"{LAYER}.self_attn.q_layernorm.norms.{{h}}.weight",
        STACKED,
    ),
    row(
        f"{BLOCK}/attention/key_norm/scale",
        f"{LAYER}.self_attn.k_layernorm.norms.{{k}}.weight",
        STACKED,
    ),
)


def _decode_parallel(reader: Reader) -> dict[str, Any]:
    parallel = reader.get("use_parallel_residual", False)
    return {"parallel_residual": parallel, "shared_norm": parallel}


SIZE_2_1_6B = {
    "vocab_size": 100352,
    "hidden_size": 2048,
    "num_hidden_layers": 24,
    "intermediate_size": 5632,
    "use_qkv_bias": True,
    "bos_token_id": 100257,
    "eos_token_id": 100257,
}
SIZE_2_12B = {
    "vocab_size": 100352,
    "hidden_size": 5120,
    "num_hidden_layers": 40,
    "num_key_value_heads": 8,
    "intermediate_size": 13824,
    "qk_layernorm": True,
    "use_parallel_residual": True,
    "bos_token_id": 100257,
    "eos_token_id": 100257,
}

FAMILY = Family(
    model_type="stablelm",
    config=DecoderConfig,
    fixed={
        "positions": "rotary",
        "gated": True,
        "projection_bias": False,
        "qk_norm_scope": "each_head",
        "qk_norm_bias": False,
    },
    items=(
        Fact("vocab_size", "vocab_size", 50304),
        Fact("hidden_dim", "hidden_size", 2560),
        Fact("num_layers", "num_hidden_layers", 32),
        Fact("num_heads", "num_attention_heads", 32),
        Fact("num_kv_heads", "num_key_value_heads", 32),
        Fact("intermediate_dim", "intermediate_size", 6912),
        Fact("max_length", "max_position_embeddings", 4096),
        Fact("norm_epsilon", "layer_norm_eps", 1e-5),
        Fact("dropout", "hidden_dropout", 0.0),
        Fact("attention_dropout", "attention_dropout", 0.0),
        Fact("attention_bias", "use_qkv_bias", False),
        activation("hidden_act", "silu"),
        Fact("tie_embeddings", "tie_word_embeddings", False),
        Rule(_decode_parallel, lambda config: {"use_parallel_residual": config.parallel_residual}),
        phi.QK_NORM,
        rotary(fraction=0.25),
        special_tokens(bos=0, eos=0),
    ),
    rows=ROWS,
    forms=llama.forms("StableLm", without=("question-answering",)),
    prefix="model",
    ignored=(r"\.rotary_emb\.inv_freq$",),
    presets={
        "stablelm-3b-4e1t": Preset({}, 2_795_443_200, "text-generation"),
        "stablelm-2-1_6b": Preset(SIZE_2_1_6B, 1_644_515_328, "text-generation"),
        "stablelm-2-12b": Preset(SIZE_2_12B, 12_143_185_920, "text-generation"),
    },
    source="https://arxiv.org/abs/2402.17834",
)
