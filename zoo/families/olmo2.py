"""OLMo 2 (OLMo Team, 2024): Llama with norms behind its layers, and of all queries and all keys;
model card allenai/OLMo-2-1124-7B.
"""

from typing import Any

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import inherited, special_tokens
from zoo.checkpoints.family import Family, Preset
from zoo.checkpoints.rotary import rotary
from zoo.checkpoints.table import norm
from zoo.families import llama, qwen3

BLOCK, LAYER = llama.BLOCK, llama.LAYER
NORMS = (
    *norm(f"{BLOCK}/attention_post_norm", f"{LAYER}.post_attention_layernorm"),
    *norm(f"{BLOCK}/feed_forward_post_norm", f"{LAYER}.post_feedforward_layernorm"),
    *qwen3.QUERY_AND_KEY_NORMS,
)


def olmo_2(parameters: int, width: int, inner: int, layers: int, heads: tuple[int, int]) -> Preset:
    """A published size."""
    given: dict[str, Any] = {
        "vocab_size": 100352,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 500000.0,
        "eos_token_id": 100257,
        "pad_token_id": 100277,
    }
    return Preset(given, parameters, "text-generation")


FAMILY = Family(
    model_type="olmo2",
    config=DecoderConfig,
    fixed={**llama.FIXED, "norm_position": "output", "qk_norm": "rms", "qk_norm_scope": "all"},
    items=(
        *inherited(llama.SIZES, vocab_size=50304, rms_norm_eps=1e-5),
        llama.attention_biases(),
        rotary(),
        special_tokens(pad=1, eos=50279),
    ),
    rows=(*llama.ENDS, *NORMS, *llama.ATTENTION, *llama.FEED_FORWARD),
    forms=llama.forms("Olmo2", ("question-answering", "token-classification")),
    prefix="model",
    presets={
        "olmo-2-1b": olmo_2(1_484_916_736, 2048, 8192, 16, (16, 16)),
        "olmo-2-7b": olmo_2(7_298_617_344, 4096, 11008, 32, (32, 32)),
        "olmo-2-13b": olmo_2(13_716_198_400, 5120, 13824, 40, (40, 40)),
        "olmo-2-32b": olmo_2(32_234_279_936, 5120, 27648, 64, (40, 8)),
    },
    source="https://arxiv.org/abs/2501.00656",
)
