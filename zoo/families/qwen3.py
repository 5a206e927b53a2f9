"""Qwen 3 (Yang et al., 2025): Llama with a norm of each query and key head; model card
Qwen/Qwen3-0.6B.
"""

from typing import Any

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import inherited, special_tokens
from zoo.checkpoints.family import Family, Preset
from zoo.checkpoints.rotary import rotary
from zoo.checkpoints.table import norm
from zoo.families import llama, qwen2

FIXED = {**llama.FIXED, "qk_norm": "rms"}
QUERY_AND_KEY_NORMS = (
    *norm(f"{llama.BLOCK}/attention/query_norm/norm", f"{llama.LAYER}.self_attn.q_norm"),
    *norm(f"{llama.BLOCK}/attention/key_norm/norm", f"{llama.LAYER}.self_attn.k_norm"),
)


def qwen_3(
    parameters: int, width: int, inner: int, layers: int, heads: int, tied: bool = False
) -> Preset:
    """A published size."""
    given: dict[str, Any] = {"tie_word_embeddings": True} if tied else {}
    given["max_position_embeddings"] = 40960
    return qwen2.qwen_2_5(parameters, width, inner, layers, (heads, 8), **given)


FAMILY = Family(
    model_type="qwen3",
    config=DecoderConfig,
    fixed=FIXED,
    items=(
        *inherited(qwen2.SIZES, head_dim=128),
        llama.attention_biases(),
        *qwen2.WINDOWS,
        rotary(),
        special_tokens(),
    ),
    rows=(*llama.ROWS, *QUERY_AND_KEY_NORMS),
    forms=llama.forms("Qwen3", question_prefix="transformer"),
    prefix="model",
    presets={
        "qwen3-0.6b": qwen_3(596_049_920, 1024, 3072, 28, 16, tied=True),
        "qwen3-1.7b": qwen_3(1_720_574_976, 2048, 6144, 28, 16, tied=True),
        "qwen3-4b": qwen_3(4_022_468_096, 2560, 9728, 36, 32, tied=True),
        "qwen3-8b": qwen_3(8_190_735_360, 4096, 12288, 36, 32),
        "qwen3-14b": qwen_3(14_768_307_200, 5120, 17408, 40, 40),
        "qwen3-32b": qwen_3(32_762_123_264, 5120, 25600, 64, 64),
    },
    source="https://arxiv.org/abs/2505.09388",
)
