"""Qwen 2 and 2.5 (Yang et al., 2024): Llama with biases of query, key and value; model card
Qwen/Qwen2.5-0.5B.
"""

from typing import Any

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import Unused, inherited, special_tokens
from zoo.checkpoints.family import Family, Preset
from zoo.checkpoints.rotary import rotary
from zoo.checkpoints.windows import layer_windows
from zoo.families import llama

SIZES = inherited(
    llama.SIZES,
    vocab_size=151936,
    num_key_value_heads=32,
    intermediate_size=22016,
    max_position_embeddings=32768,
)
FIRST = "max_window_layers"
WINDOWS = (
    layer_windows(4096, lambda reader, i: i < reader.get(FIRST, 28), switched=True, first=FIRST),
    Unused((FIRST, "sliding_window")),  # without use_sliding_window
)


def qwen_2_5(
    parameters: int, width: int, inner: int, layers: int, heads: tuple[int, int], **given: Any
) -> Preset:
    """A published size."""
    return Preset(
        {
            "hidden_size": width,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads[0],
            "num_key_value_heads": heads[1],
            "rope_theta": 1e6,
            "bos_token_id": 151643,
            "eos_token_id": 151643,
            **given,
        },
        parameters,
        "text-generation",
    )


LONG = {"max_position_embeddings": 131072}
LARGE = {**LONG, "vocab_size": 152064}
LARGEST = {**LARGE, "rms_norm_eps": 1e-5}
TIED = {"tie_word_embeddings": True}

FAMILY = Family(
    model_type="qwen2",
    config=DecoderConfig,
    fixed={
        **llama.FIXED,
        "attention_bias": True,
        "attention_output_bias": False,
        "projection_bias": False,
    },
    items=(*SIZES, *WINDOWS, rotary(), special_tokens()),
    rows=llama.ROWS,
    forms=llama.forms("Qwen2", question_prefix="transformer"),
    prefix="model",
    ignored=(r"\.rotary_emb\.inv_freq$",),
    presets={
        "qwen2.5-0.5b": qwen_2_5(494_032_768, 896, 4864, 24, (14, 2), **TIED),
        "qwen2.5-1.5b": qwen_2_5(1_543_714_304, 1536, 8960, 28, (12, 2), **LONG, **TIED),
        "qwen2.5-3b": qwen_2_5(3_085_938_688, 2048, 11008, 36, (16, 2), **TIED),
        "qwen2.5-7b": qwen_2_5(7_615_616_512, 3584, 18944, 28, (28, 4), **LARGE),
        "qwen2.5-14b": qwen_2_5(14_770_033_664, 5120, 13824, 48, (40, 8), **LARGEST),
        "qwen2.5-32b": qwen_2_5(32_763_876_352, 5120, 27648, 64, (40, 8), **LARGEST),
        "qwen2.5-72b": qwen_2_5(72_706_203_648, 8192, 29568, 80, (64, 8), **LARGEST),
    },
    source="https://arxiv.org/abs/2412.15115",
)
