"""Qwen 3 with experts (Yang et al., 2025); model card Qwen/Qwen3-30B-A3B."""

from typing import Any

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import Fact, Reader, Rule, Unused, inherited, special_tokens
from zoo.checkpoints.family import Family, Preset
from zoo.checkpoints.rotary import rotary
from zoo.checkpoints.table import STACKED_EXPERTS, linear, row
from zoo.families import llama, qwen2, qwen3

BLOCK, LAYER = f"{llama.BLOCK}/feed_forward", f"{llama.LAYER}.mlp"
EXPERTS = (
    *linear(f"{BLOCK}/router", f"{LAYER}.gate"),
    *(
        row(f"{BLOCK}/{name}_kernel", f"{LAYER}.experts.{{e}}.{name}_proj.weight", STACKED_EXPERTS)
        for name in ("gate", "up", "down")
    ),
)


def _decode_layers(reader: Reader) -> dict[str, Any]:
    step = reader.get("decoder_sparse_step", 1)
    named = set(reader.get("mlp_only_layers", None) or ())
    layers = range(reader.get("num_hidden_layers"))
    return {"dense_layers": tuple(i for i in layers if i in named or (i + 1) % step)}


def _decode_window(reader: Reader) -> dict[str, Any]:
    size = reader.get("sliding_window", 4096)
    return {"window": size if reader.get("use_sliding_window", False) else None}


def _encode_layers(config: Any) -> dict[str, Any]:
    """A step, where the layers come at equal distances, else their numbers."""
    layers = range(config.num_layers)
    for step in layers[1:]:
        if config.dense_layers == tuple(i for i in layers if (i + 1) % step):
            return {"decoder_sparse_step": step, "mlp_only_layers": []}
    return {"decoder_sparse_step": 1, "mlp_only_layers": list(config.dense_layers)}


LAYERS = Rule(_decode_layers, _encode_layers)
WINDOW = Rule(
    _decode_window,
    lambda config: {
        "sliding_window": config.window,
        "use_sliding_window": config.window is not None,
    },
)
WEIGHTS = {True: "softmax_all_normalized", False: "softmax_all"}


def qwen_3_moe(parameters: int, width: int, layers: int, heads: int, inner: int) -> Preset:
    """A published size."""
    return Preset(
        {
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "head_dim": 128,
            "moe_intermediate_size": inner,
            "max_position_embeddings": 40960,
            "norm_topk_prob": True,
            "rope_theta": 1e6,
            "bos_token_id": 151643,
            "eos_token_id": 151645,
        },
        parameters,
        "text-generation",
    )


FAMILY = Family(
    model_type="qwen3_moe",
    config=DecoderConfig,
    fixed=qwen3.FIXED,
    items=(
        *inherited(
            qwen2.SIZES,
            hidden_size=2048,
            num_hidden_layers=24,
            num_key_value_heads=4,
            intermediate_size=6144,
        ),
        Fact("num_experts", "num_experts", 128, also=("num_local_experts",)),
        Fact("experts_per_token", "num_experts_per_tok", 8),
        Fact("expert_dim", "moe_intermediate_size", 768),
        Fact(
            "expert_weights",
            "norm_topk_prob",
            False,
            WEIGHTS.__getitem__,
            {name: flag for flag, name in WEIGHTS.items()}.__getitem__,
        ),
        LAYERS,
        WINDOW,
        llama.attention_biases(),
        Unused(("max_window_layers",)),
        rotary(),
        special_tokens(),
    ),
    rows=(*llama.ROWS, *qwen3.QUERY_AND_KEY_NORMS, *EXPERTS),
    forms=llama.forms("Qwen3Moe", question_prefix="transformer"),
    prefix="model",
    presets={
        "qwen3-30b-a3b": qwen_3_moe(30_532_122_624, 2048, 48, 32, 768),
        "qwen3-235b-a22b": qwen_3_moe(235_093_634_560, 4096, 94, 64, 1536),
    },
    source="https://arxiv.org/abs/2505.09388",
)
