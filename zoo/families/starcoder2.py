"""StarCoder 2 (Lozhkov et al., 2024): rotary, grouped keys, layer norms, a window; model card
bigcode/starcoder2-3b.
"""

from typing import Any

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import Expect, Fact, Reader, Rule, Unused, activation, special_tokens
from zoo.checkpoints.family import Family, Preset
from zoo.checkpoints.rotary import rotary
from zoo.checkpoints.table import linear
from zoo.families import llama

ROWS = (
    *llama.ENDS,
    *llama.NORMS,
    *llama.ATTENTION,
    *linear("decoder/block_{i}/feed_forward/up", "layers.{i}.mlp.c_fc"),
    *linear("decoder/block_{i}/feed_forward/down", "layers.{i}.mlp.c_proj"),
)


def _decode_biases(reader: Reader) -> dict[str, Any]:
    on = reader.get("use_bias", True)
    return {"attention_bias": on, "projection_bias": on}


def _size(hidden: int, layers: int, heads: int, kv_heads: int, theta: float) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 16384,
        "sliding_window": 4096,
        "rope_theta": theta,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }


FAMILY = Family(
    model_type="starcoder2",
    config=DecoderConfig,
    fixed={"positions": "rotary"},
    items=(
        Fact("vocab_size", "vocab_size", 49152),
        Fact("hidden_dim", "hidden_size", 3072),
        Fact("num_layers", "num_hidden_layers", 30),
        Fact("num_heads", "num_attention_heads", 24),
        Fact("num_kv_heads", "num_key_value_heads", 2),
        Fact("intermediate_dim", "intermediate_size", 12288),
        Fact("max_length", "max_position_embeddings", 4096),
        Fact("norm_epsilon", "norm_epsilon", 1e-5),
        Fact("dropout", "residual_dropout", 0.0),
        Fact("attention_dropout", "attention_dropout", 0.0),
        Fact("window", "sliding_window", None),
        activation("hidden_act", "gelu_pytorch_tanh"),
        Fact("tie_embeddings", "tie_word_embeddings", True),
        Rule(_decode_biases, lambda config: {"use_bias": config.attention_bias}),
        rotary(),
        Expect("mlp_type", ("default",), written=False),
        Expect("norm_type", ("layer_norm",), written=False),
        Expect("scale_attn_weights", (True,), written=False),
        Unused(  # the reference reads other keys for the first two
            (
                "activation_function",
                "layer_norm_epsilon",
                "attention_softmax_in_fp32",
                "scale_attention_softmax_in_fp32",
                "embedding_dropout",
            )
        ),
        special_tokens(bos=50256, eos=50256),
    ),
    rows=ROWS,
    forms=llama.forms("Starcoder2", without=("question-answering",)),
    prefix="model",
    ignored=(r"\.rotary_emb\.inv_freq$",),
    presets={
        "starcoder2-3b": Preset(
            _size(3072, 30, 24, 2, 999999.4420358813), 3_030_371_328, "text-generation"
        ),
        "starcoder2-7b": Preset(
            _size(4608, 32, 36, 4, 1000000.0), 7_173_923_840, "text-generation"
        ),
        "starcoder2-15b": Preset(
            {**_size(6144, 40, 48, 4, 100000.0), "tie_word_embeddings": False},
            15_957_889_024,
            "text-generation",
        ),
    },
    source="https://arxiv.org/abs/2402.19173",
)
