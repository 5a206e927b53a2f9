"""GPT-Neo (Black et al., 2021): GPT-2 with every second layer local, unscaled scores; model card
EleutherAI/gpt-neo-2.7B.
"""

from typing import Any

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import Fact, Reader, Rule, Unused, activation, special_tokens
from zoo.checkpoints.family import Family, Preset
from zoo.checkpoints.table import linear, norm
from zoo.families import gpt2

BLOCK, LAYER = "decoder/block_{i}", "h.{i}"
BLOCKS = (
    *norm(f"{BLOCK}/attention_norm", f"{LAYER}.ln_1"),
    *linear(f"{BLOCK}/attention/query", f"{LAYER}.attn.attention.q_proj"),
    *linear(f"{BLOCK}/attention/key", f"{LAYER}.attn.attention.k_proj"),
    *linear(f"{BLOCK}/attention/value", f"{LAYER}.attn.attention.v_proj"),
    *linear(f"{BLOCK}/attention/output", f"{LAYER}.attn.attention.out_proj"),
    *norm(f"{BLOCK}/feed_forward_norm", f"{LAYER}.ln_2"),
    *linear(f"{BLOCK}/feed_forward/up", f"{LAYER}.mlp.c_fc"),
    *linear(f"{BLOCK}/feed_forward/down", f"{LAYER}.mlp.c_proj"),
    *norm("decoder/final_norm", "ln_f"),
)


def _decode_layers(reader: Reader) -> dict[str, Any]:
    count = reader.get("num_layers", 24)
    types = reader.get("attention_types", None) or [[["global", "local"], 12]]
    kinds = [kind for pattern, times in types for kind in pattern * times]
    window = reader.get("window_size", 256)
    if reader.get("attention_layers", kinds) != kinds or len(kinds) != count:
        raise reader.refuse(
            "attention_types",
            f"says {len(kinds)} layers, expected those of attention_layers and num_layers {count}",
        )
    unknown = sorted(set(kinds) - {"global", "local"})
    if unknown:
        raise reader.refuse("attention_types", f"has {unknown}, expected global or local")
    numbers = tuple(i for i, kind in enumerate(kinds) if kind == "global")
    return {"window": window, "global_layers": numbers}


def _encode_layers(config: Any) -> dict[str, Any]:
    kinds = [
        "global" if config.layer_window(i) is None else "local" for i in range(config.num_layers)
    ]
    period = next(n for n in range(1, len(kinds) + 1) if kinds[:n] * (len(kinds) // n) == kinds)
    return {
        "attention_types": [[kinds[:period], len(kinds) // period]],
        "attention_layers": kinds,
        "window_size": config.window,
    }


def _size(hidden: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_layers": layers,
        "num_heads": heads,
        "attention_types": [[["global", "local"], layers // 2]],
    }


FAMILY = Family(
    model_type="gpt_neo",
    config=DecoderConfig,
    fixed={"attention_scale": 1.0, "attention_bias": False},
    items=(
        Fact("vocab_size", "vocab_size", 50257),
        Fact("hidden_dim", "hidden_size", 2048),
        Fact("num_layers", "num_layers", 24, also=("num_hidden_layers",)),
        Fact("num_heads", "num_heads", 16, also=("num_attention_heads",)),
        Fact("intermediate_dim", "intermediate_size", None),
        Fact("max_length", "max_position_embeddings", 2048),
        Fact("norm_epsilon", "layer_norm_epsilon", 1e-5),
        Fact("dropout", "resid_dropout", 0.0),
        Fact("attention_dropout", "attention_dropout", 0.0),
        activation("activation_function", "gelu_new"),
        Fact("tie_embeddings", "tie_word_embeddings", True),
        Rule(_decode_layers, _encode_layers),
        Unused(("embed_dropout",)),
        special_tokens(bos=50256, eos=50256),
    ),
    rows=(*gpt2.EMBEDDINGS, *BLOCKS),
    forms=gpt2.forms("GPTNeo"),
    prefix="transformer",
    ignored=(r"\.attn\.attention\.bias$", r"\.attn\.attention\.masked_bias$"),
    presets={
        f"gpt-neo-{name}": Preset(size, count, "text-generation")
        for name, size, count in (
            ("125m", _size(768, 12, 12), 125_198_592),
            ("1.3B", _size(2048, 24, 16), 1_315_575_808),
            ("2.7B", _size(2560, 32, 20), 2_651_307_520),
        )
    },
    source="https://doi.org/10.5281/zenodo.5297715",
)
