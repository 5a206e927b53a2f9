"""Mixtral (Jiang et al., 2024): Mistral whose feed-forward layers are experts; model card
mistralai/Mixtral-8x7B-v0.1.
"""

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import Fact, inherited, special_tokens
from zoo.checkpoints.family import Family, Preset
from zoo.checkpoints.rotary import rotary
from zoo.checkpoints.table import STACKED_EXPERTS, linear, row
from zoo.families import llama, mistral

BLOCK, LAYER = llama.BLOCK, f"{llama.LAYER}.block_sparse_moe"
EXPERTS = (
    *linear(f"{BLOCK}/feed_forward/router", f"{LAYER}.gate"),
    *(
        row(
            f"{BLOCK}/feed_forward/{ours}_kernel",
            f"{LAYER}.experts.{{e}}.{theirs}.weight",
            STACKED_EXPERTS,
        )
        for ours, theirs in (("gate", "w1"), ("up", "w3"), ("down", "w2"))
    ),
)

FAMILY = Family(
    model_type="mixtral",
    config=DecoderConfig,
    fixed={**mistral.FIXED, "expert_weights": "softmax_all_normalized"},
    items=(
        *inherited(mistral.SIZES, rms_norm_eps=1e-5),
        Fact("num_experts", "num_local_experts", 8, also=("num_experts",)),
        Fact("experts_per_token", "num_experts_per_tok", 2),
        Fact("window", "sliding_window", None),
        rotary(1e6),
        special_tokens(bos=1, eos=2),
    ),
    rows=(*llama.ENDS, *llama.NORMS, *llama.ATTENTION, *EXPERTS),
    forms=llama.forms("Mixtral"),
    prefix="model",
    ignored=(r"\.rotary_emb\.inv_freq$",),
    presets={
        "mixtral-8x7b": Preset(
            {"max_position_embeddings": 32768}, 46_702_792_704, "text-generation"
        ),
        "mixtral-8x22b": Preset(
            {
                "hidden_size": 6144,
                "intermediate_size": 16384,
                "num_hidden_layers": 56,
                "num_attention_heads": 48,
                "max_position_embeddings": 65536,
            },
            140_620_634_112,
            "text-generation",
        ),
    },
    source="https://arxiv.org/abs/2401.04088",
)
