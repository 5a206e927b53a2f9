"""Falcon (Almazrouei et al., 2023): attention and feed-forward in parallel, with one key head (7B)
or a few (40B and later), and RefinedWeb's sequential ALiBi models; model card tiiuae/falcon-7b.
"""

from typing import Any

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import Expect, Fact, Reader, Rule, activation, special_tokens
from zoo.checkpoints.family import Family, Preset
from zoo.checkpoints.rotary import rotary
from zoo.checkpoints.table import norm, when
from zoo.families import bloom, gpt2

BLOCK, LAYER = "decoder/block_{i}", "h.{i}"


def _two_norms(config: Any) -> bool:
    return config.parallel_residual and not config.shared_norm


def _one_norm(config: Any) -> bool:
    return not _two_norms(config)


NORMS = (
    *when(_one_norm, *bloom.NORMS),
    *when(_two_norms, *norm(f"{BLOCK}/attention_norm", f"{LAYER}.ln_attn")),
    *when(_two_norms, *norm(f"{BLOCK}/feed_forward_norm", f"{LAYER}.ln_mlp")),
)


def _decode_form(reader: Reader) -> dict[str, Any]:
    new = reader.get("new_decoder_architecture", False)
    parallel = reader.get("parallel_attn", True)
    norms = reader.get("num_ln_in_parallel_attn", None) or (2 if new else 1)
    one_key_head = reader.get("multi_query", True) and not new
    heads = reader.get("num_attention_heads", reader.get("n_head", 71))
    kv_heads = reader.get("num_kv_heads", reader.get("n_head_kv", None))
    if new and not parallel:
        raise reader.refuse("parallel_attn", "is not supported with new_decoder_architecture")
    if parallel and not new and norms != 1:
        raise reader.refuse("num_ln_in_parallel_attn", "needs new_decoder_architecture")
    return {
        "num_kv_heads": 1 if one_key_head else kv_heads if new else heads,
        "parallel_residual": parallel,
        "shared_norm": parallel and norms == 1,
    }


def _encode_form(config: Any) -> dict[str, Any]:
    one_key_head = config.num_kv_heads == 1
    few = not one_key_head and config.num_kv_heads != config.num_heads
    new = config.parallel_residual and (few or not config.shared_norm)
    return {
        "new_decoder_architecture": new,
        "parallel_attn": config.parallel_residual,
        "num_ln_in_parallel_attn": 1 if config.shared_norm else 2 if new else None,
        "multi_query": one_key_head or new,
        "num_kv_heads": config.num_kv_heads if new else config.num_heads,
    }


def _decode_positions(reader: Reader) -> dict[str, Any]:
    if reader.get("alibi", False):
        return {"positions": "none", "position_bias": "rounded_alibi"}
    return {"positions": "rotary"}


def _decode_biases(reader: Reader) -> dict[str, Any]:
    on = reader.get("bias", False)
    return {"attention_bias": on, "projection_bias": on}


def _size(hidden: int, layers: int, heads: int, **others: Any) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        **others,
    }


_REFINED_WEB = {
    "alibi": True,
    "bias": True,
    "multi_query": False,
    "parallel_attn": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_NEW = {"new_decoder_architecture": True, "num_kv_heads": 8}
SIZES: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("falcon-rw-1b", _size(2048, 24, 32, vocab_size=50304, **_REFINED_WEB), 1_311_625_216),
    ("falcon-rw-7b", _size(4096, 36, 64, **_REFINED_WEB), 7_516_020_736),
    ("falcon-7b", {}, 6_921_720_704),
    ("falcon-40b", _size(8192, 60, 128, **_NEW), 41_303_293_952),
    ("falcon-180B", _size(14848, 80, 232, **_NEW), 178_557_088_768),
)

FAMILY = Family(
    model_type="falcon",
    config=DecoderConfig,
    fixed={},
    items=(
        Fact("vocab_size", "vocab_size", 65024),
        Fact("hidden_dim", "hidden_size", 4544, also=("n_embed",)),
        Fact("num_layers", "num_hidden_layers", 32, also=("n_layer",)),
        Fact("num_heads", "num_attention_heads", 71, also=("n_head",)),
        Fact("intermediate_dim", "ffn_hidden_size", None),
        Fact("max_length", "max_position_embeddings", 2048),
        Fact("norm_epsilon", "layer_norm_epsilon", 1e-5),
        Fact("dropout", "hidden_dropout", 0.0),
        Fact("attention_dropout", "attention_dropout", 0.0),
        activation("activation", "gelu"),
        Fact("tie_embeddings", "tie_word_embeddings", True),
        Rule(_decode_form, _encode_form),
        Rule(_decode_positions, lambda config: {"alibi": config.positions != "rotary"}),
        Rule(_decode_biases, lambda config: {"bias": config.attention_bias}),
        rotary(),
        Expect("apply_residual_connection_post_layernorm", (False,), written=False),
        special_tokens(bos=11, eos=11),
    ),
    rows=(bloom.TOKENS, *NORMS, *bloom.LAYERS),
    forms=gpt2.forms("Falcon"),
    prefix="transformer",
    ignored=(r"\.rotary(_emb)?\.inv_freq$",),
    presets={name: Preset(size, count, "text-generation") for name, size, count in SIZES},
    source="https://arxiv.org/abs/2311.16867",
)
