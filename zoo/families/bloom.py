"""BLOOM (BigScience, 2022): ALiBi and a norm behind the embeddings; model card bigscience/bloom."""

from typing import Any

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import Expect, Fact, Reader, Rule, Unused, special_tokens
from zoo.checkpoints.family import Family, Preset
from zoo.checkpoints.table import HEADS_IN_TURN, linear, norm, qkv, row
from zoo.families import gpt2

LENGTH = 2048
"""Of the texts of its training: the reference has no key for it."""
BLOCK, LAYER = "decoder/block_{i}", "h.{i}"
TOKENS = row(
    "decoder/embeddings/tokens/table", "word_embeddings.weight", aliases=["lm_head.weight"]
)
NORMS = (
    *norm(f"{BLOCK}/attention_norm", f"{LAYER}.input_layernorm"),
    *norm(f"{BLOCK}/feed_forward_norm", f"{LAYER}.post_attention_layernorm"),
)
LAYERS = (
    *(
        row(
            [f"{name}/{ours}" for name in qkv(BLOCK)],
            f"{LAYER}.self_attention.query_key_value.{theirs}",
            HEADS_IN_TURN,
        )
        for ours, theirs in (("kernel", "weight"), ("bias", "bias"))
    ),
    *linear(f"{BLOCK}/attention/output", f"{LAYER}.self_attention.dense"),
    *linear(f"{BLOCK}/feed_forward/up", f"{LAYER}.mlp.dense_h_to_4h"),
    *linear(f"{BLOCK}/feed_forward/down", f"{LAYER}.mlp.dense_4h_to_h"),
    *norm("decoder/final_norm", "ln_f"),
)


def _decode_length(reader: Reader) -> dict[str, Any]:
    return {"max_length": reader.get("seq_length", LENGTH)}


def _encode_length(config: Any) -> dict[str, Any]:
    return {} if config.max_length == LENGTH else {"seq_length": config.max_length}


def _size(hidden: int, layers: int, heads: int) -> dict[str, Any]:
    return {"hidden_size": hidden, "n_layer": layers, "n_head": heads, "pad_token_id": 3}


SIZES = (
    ("bloom-560m", _size(1024, 24, 16), 559_214_592),
    ("bloom-1b1", _size(1536, 24, 16), 1_065_314_304),
    ("bloom-1b7", _size(2048, 24, 16), 1_722_408_960),
    ("bloom-3b", _size(2560, 30, 32), 3_002_557_440),
    ("bloom-7b1", _size(4096, 30, 32), 7_069_016_064),
    ("bloom", _size(14336, 70, 112), 176_247_271_424),
)

FAMILY = Family(
    model_type="bloom",
    config=DecoderConfig,
    fixed={
        "positions": "none",
        "position_bias": "alibi",
        "embedding_norm": True,
        "activation": "gelu_tanh",
    },
    items=(
        Fact("vocab_size", "vocab_size", 250880),
        Fact("hidden_dim", "hidden_size", 64, also=("n_embed",)),
        Fact("num_layers", "n_layer", 2, also=("num_hidden_layers",)),
        Fact("num_heads", "n_head", 8, also=("num_attention_heads",)),
        Rule(_decode_length, _encode_length),
        Fact("norm_epsilon", "layer_norm_epsilon", 1e-5),
        Fact("dropout", "hidden_dropout", 0.0),
        Fact("attention_dropout", "attention_dropout", 0.0),
        Fact("tie_embeddings", "tie_word_embeddings", True),
        Expect("apply_residual_connection_post_layernorm", (False,), "No released BLOOM has it."),
        Unused(
            (
                "attention_softmax_in_fp32",
                "bias_dropout_fusion",
                "masked_softmax_fusion",
                "n_inner",
                "offset_alibi",
                "skip_bias_add",
                "skip_bias_add_qkv",
                "slow_but_exact",
                "unk_token_id",
            )
        ),
        special_tokens(bos=1, eos=2),
    ),
    rows=(TOKENS, *norm("decoder/embeddings/norm", "word_embeddings_layernorm"), *NORMS, *LAYERS),
    forms=gpt2.forms("Bloom"),
    prefix="transformer",
    presets={name: Preset(size, count, "text-generation") for name, size, count in SIZES},
    source="https://arxiv.org/abs/2211.05100",
)
