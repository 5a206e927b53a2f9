"""ALBERT (Lan et al., 2020): BERT with shared blocks and a narrow embedding; model card
albert/albert-base-v2.
"""

from typing import Any

from zoo.backbones.config import EncoderConfig
from zoo.checkpoints.facts import Fact, Reader, Rule, Unused, inherited, special_tokens
from zoo.checkpoints.family import Family, Form, Preset
from zoo.checkpoints.table import linear, norm, outside
from zoo.families.bert import (
    BLOCK,
    ENCODER_ONLY,
    FIXED,
    OLD_NORMS,
    SIZES,
    embeddings,
    masked_head,
    sizes,
    span_and_tag_forms,
)

DECODER = "predictions.decoder"
LAYER = "encoder.albert_layer_groups.{g}.albert_layers.{j}"
BLOCKS = (
    *linear("encoder/embeddings/projection", "encoder.embedding_hidden_mapping_in"),
    *linear(f"{BLOCK}/attention/query", f"{LAYER}.attention.query"),
    *linear(f"{BLOCK}/attention/key", f"{LAYER}.attention.key"),
    *linear(f"{BLOCK}/attention/value", f"{LAYER}.attention.value"),
    *linear(f"{BLOCK}/attention/output", f"{LAYER}.attention.dense"),
    *norm(f"{BLOCK}/attention_norm", f"{LAYER}.attention.LayerNorm"),
    *linear(f"{BLOCK}/feed_forward/up", f"{LAYER}.ffn"),
    *linear(f"{BLOCK}/feed_forward/down", f"{LAYER}.ffn_output"),
    *norm(f"{BLOCK}/feed_forward_norm", f"{LAYER}.full_layer_layer_norm"),
)


def _decode_blocks(reader: Reader) -> dict[str, Any]:
    """A group of blocks is run through as a whole for each of the file's layers."""
    groups, turns = reader.get("num_hidden_groups", 1), reader.get("inner_group_num", 1)
    return {
        "num_layers": reader.get("num_hidden_layers", 12) * turns,
        "shared_blocks": groups * turns,
        "blocks_in_turn": turns,
    }


def _encode_blocks(config: EncoderConfig) -> dict[str, Any]:
    turns = config.blocks_in_turn
    return {
        "num_hidden_layers": config.num_layers // turns,
        "num_hidden_groups": (config.shared_blocks or config.num_layers) // turns,
        "inner_group_num": turns,
    }


FAMILY = Family(
    model_type="albert",
    config=EncoderConfig,
    fixed={**FIXED, "embedding_projection": True},
    items=(
        *inherited(
            SIZES,
            without=("num_hidden_layers",),
            vocab_size=30000,
            hidden_size=4096,
            num_attention_heads=64,
            intermediate_size=16384,
            hidden_act="gelu_new",
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        *ENCODER_ONLY,
        Rule(_decode_blocks, _encode_blocks),
        Fact("embedding_dim", "embedding_size", 128),
        Fact("token_types", "type_vocab_size", 2),
        Fact("tie_embeddings", "tie_word_embeddings", True),
        Unused(
            (
                "net_structure_type",
                "gap_size",
                "num_memory_blocks",
                "down_scale_factor",
                "layers_to_keep",
            )
        ),
        special_tokens(pad=0, bos=2, eos=3),
    ),
    rows=(*embeddings(DECODER), *BLOCKS),
    forms={
        "fill-mask": Form(
            ("AlbertForMaskedLM", "AlbertForPreTraining"),
            masked_head("predictions.dense", "predictions.LayerNorm", "predictions.bias", DECODER),
        ),
        "text-classification": Form(
            ("AlbertForSequenceClassification",),
            (*linear("head/dense", "pooler"), *outside(*linear("head/logits", "classifier"))),
            {"pooling": "cls", "hidden_activation": "tanh"},
        ),
        **span_and_tag_forms("Albert"),
        "feature-extraction": Form(("AlbertModel",), prefixed=False),
    },
    prefix="albert",
    ignored=(r"\.position_ids$", r"^sop_classifier\."),
    renamed=OLD_NORMS,
    presets={
        "albert-base-v2": Preset(sizes(768, 12), 11_221_680, "fill-mask"),
        "albert-large-v2": Preset(sizes(1024, 16, 24), 16_795_824, "fill-mask"),
        "albert-xlarge-v2": Preset(sizes(2048, 16, 24), 54_821_040, "fill-mask"),
        "albert-xxlarge-v2": Preset(sizes(4096, 64), 206_368_944, "fill-mask"),
    },
    source="https://arxiv.org/abs/1909.11942",
)
