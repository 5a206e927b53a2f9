"""ModernBERT (Warner et al., 2024): pre-norm encoder with rotary positions, gated feed-forward and
local layers between global ones; model card answerdotai/ModernBERT-base.
"""

from typing import Any

from zoo.backbones.config import EncoderConfig
from zoo.checkpoints.facts import (
    ACTIVATIONS,
    Fact,
    Reader,
    Rule,
    Unused,
    activation,
    special_tokens,
)
from zoo.checkpoints.family import Family, Form, Preset
from zoo.checkpoints.rotary import rotary_by_window
from zoo.checkpoints.table import (
    TRANSPOSED,
    attention_sizes,
    fused,
    linear,
    norm,
    outside,
    qkv,
    row,
)
from zoo.checkpoints.windows import FULL, SLIDING

BLOCK, LAYER = "encoder/block_{i}", "layers.{i}"
ROWS = (
    row(
        "encoder/embeddings/tokens/table",
        "embeddings.tok_embeddings.weight",
        aliases=["decoder.weight"],
    ),
    *norm("encoder/embeddings/norm", "embeddings.norm"),
    *norm(f"{BLOCK}/attention_norm", f"{LAYER}.attn_norm"),
    *fused(qkv(BLOCK), f"{LAYER}.attn.Wqkv", attention_sizes),
    *linear(f"{BLOCK}/attention/output", f"{LAYER}.attn.Wo"),
    *norm(f"{BLOCK}/feed_forward_norm", f"{LAYER}.mlp_norm"),
    *fused(
        [f"{BLOCK}/feed_forward/gate", f"{BLOCK}/feed_forward/up"],
        f"{LAYER}.mlp.Wi",
        lambda config: [config.intermediate_dim] * 2,
    ),
    *linear(f"{BLOCK}/feed_forward/down", f"{LAYER}.mlp.Wo"),
    *norm("encoder/final_norm", "final_norm"),
)


def _decode_windows(reader: Reader) -> dict[str, Any]:
    """`local_attention` counts both sides; every third layer sees everything."""
    count = reader.get("num_hidden_layers", 22)
    every = reader.get("global_attn_every_n_layers", 3)
    kinds = [SLIDING if i % every else FULL for i in range(count)]
    kinds = reader.get("layer_types", None) or kinds
    if len(kinds) != count or not set(kinds) <= {SLIDING, FULL}:
        raise reader.refuse("layer_types", f"is not supported, expected {count} layers' kinds")
    return {
        "window": reader.get("local_attention", 128) // 2,
        "global_layers": tuple(i for i, kind in enumerate(kinds) if kind == FULL),
    }


def _encode_windows(config: EncoderConfig) -> dict[str, Any]:
    seen = [config.layer_window(i) is None for i in range(config.num_layers)]
    return {
        "local_attention": 128 if config.window is None else 2 * config.window,
        "layer_types": [FULL if whole else SLIDING for whole in seen],
    }


def _decode_biases(reader: Reader) -> dict[str, Any]:
    attention = reader.get("attention_bias", False)
    return {"attention_bias": attention, "attention_output_bias": attention}


def _prediction(reader: Reader) -> dict[str, Any]:
    """The dense layer, activation and norm that come before the logits of every head."""
    return {
        "hidden_activation": ACTIVATIONS[reader.get("classifier_activation", "gelu")],
        "hidden_bias": reader.get("classifier_bias", False),
        "hidden_norm": True,
    }


def _classifier(reader: Reader) -> dict[str, Any]:
    dropout = reader.get("classifier_dropout", 0.0)
    pooling = reader.get("classifier_pooling", "cls")
    return {**_prediction(reader), "pooling": pooling, "dropout": dropout}


HEAD = outside(*linear("head/dense", "head.dense"), *norm("head/norm", "head.norm"))
CLASSES = outside(*linear("head/logits", "classifier"))
WORDS = (row("head/output/kernel", "decoder.weight", TRANSPOSED), row("head/bias", "decoder.bias"))

FAMILY = Family(
    model_type="modernbert",
    config=EncoderConfig,
    fixed={
        "positions": "rotary",
        "gated": True,
        "embedding_norm": True,
        "first_norm": False,
    },
    items=(
        Fact("vocab_size", "vocab_size", 50368),
        Fact("hidden_dim", "hidden_size", 768),
        Fact("num_layers", "num_hidden_layers", 22),
        Fact("num_heads", "num_attention_heads", 12),
        Fact("intermediate_dim", "intermediate_size", 1152),
        Fact("max_length", "max_position_embeddings", 8192),
        Fact("norm_epsilon", "norm_eps", 1e-5),
        Fact("norm_bias", "norm_bias", False),
        activation("hidden_activation", "gelu"),
        activation("classifier_activation", "gelu", "head_activation"),
        Rule(_decode_windows, _encode_windows),
        rotary_by_window(160000.0, 10000.0, "global_rope_theta", "local_rope_theta"),
        Rule(_decode_biases, lambda config: {"attention_bias": config.attention_bias}),
        Fact("projection_bias", "mlp_bias", False),
        Fact("head_bias", "classifier_bias", False),
        Fact("logit_bias", "decoder_bias", True),
        Fact("tie_embeddings", "tie_word_embeddings", True),
        Fact("dropout", "mlp_dropout", 0.0),
        Fact("attention_dropout", "attention_dropout", 0.0),
        Unused(
            (
                "classifier_pooling",
                "global_attn_every_n_layers",
                "embedding_dropout",
                "layer_norm_eps",
                "position_embedding_type",
                "deterministic_flash_attn",
                "reference_compile",
                "repad_logits_with_grad",
                "sparse_prediction",
                "sparse_pred_ignore_index",
            )
        ),
        special_tokens(pad=50283, bos=50281, eos=50282),
    ),
    rows=ROWS,
    forms={
        "fill-mask": Form(("ModernBertForMaskedLM",), (*HEAD, *outside(*WORDS))),
        "text-classification": Form(
            ("ModernBertForSequenceClassification",), (*HEAD, *CLASSES), _classifier
        ),
        "token-classification": Form(
            ("ModernBertForTokenClassification",), (*HEAD, *CLASSES), _prediction
        ),
        "question-answering": Form(
            ("ModernBertForQuestionAnswering",), (*HEAD, *CLASSES), _prediction
        ),
        "feature-extraction": Form(("ModernBertModel",), prefixed=False),
    },
    prefix="model",
    presets={
        "modernbert-base": Preset({}, 149_655_232, "fill-mask"),
        "modernbert-large": Preset(
            {
                "hidden_size": 1024,
                "num_hidden_layers": 28,
                "num_attention_heads": 16,
                "intermediate_size": 2624,
            },
            395_881_664,
            "fill-mask",
        ),
    },
    source="https://arxiv.org/abs/2412.13663",
)
