"""DistilBERT (Sanh et al., 2019): BERT with half the layers and no segments; model card
distilbert/distilbert-base-uncased.
"""

from typing import Any

from zoo.backbones.config import EncoderConfig
from zoo.checkpoints.facts import Fact, Reader, Unused, activation, special_tokens
from zoo.checkpoints.family import Family, Form, Preset
from zoo.checkpoints.table import linear, norm, outside
from zoo.families.bert import (
    BLOCK,
    FIXED,
    OLD_NORMS,
    embeddings,
    masked_head,
    span_and_tag_forms,
)

DECODER = "vocab_projector"
LAYER = "transformer.layer.{i}"
BLOCKS = (
    *linear(f"{BLOCK}/attention/query", f"{LAYER}.attention.q_lin"),
    *linear(f"{BLOCK}/attention/key", f"{LAYER}.attention.k_lin"),
    *linear(f"{BLOCK}/attention/value", f"{LAYER}.attention.v_lin"),
    *linear(f"{BLOCK}/attention/output", f"{LAYER}.attention.out_lin"),
    *norm(f"{BLOCK}/attention_norm", f"{LAYER}.sa_layer_norm"),
    *linear(f"{BLOCK}/feed_forward/up", f"{LAYER}.ffn.lin1"),
    *linear(f"{BLOCK}/feed_forward/down", f"{LAYER}.ffn.lin2"),
    *norm(f"{BLOCK}/feed_forward_norm", f"{LAYER}.output_layer_norm"),
)


def _classifier(reader: Reader) -> dict[str, Any]:
    dropout = reader.get("seq_classif_dropout", 0.2)
    return {"pooling": "cls", "hidden_activation": "relu", "dropout": dropout}


FAMILY = Family(
    model_type="distilbert",
    config=EncoderConfig,
    fixed={**FIXED, "norm_epsilon": 1e-12},
    items=(
        Fact("vocab_size", "vocab_size", 30522),
        Fact("hidden_dim", "dim", 768, also=("hidden_size",)),
        Fact("num_layers", "n_layers", 6, also=("num_hidden_layers",)),
        Fact("num_heads", "n_heads", 12, also=("num_attention_heads",)),
        Fact("intermediate_dim", "hidden_dim", 3072),
        Fact("max_length", "max_position_embeddings", 512),
        activation("activation", "gelu"),
        Fact("dropout", "dropout", 0.1),
        Fact("attention_dropout", "attention_dropout", 0.1),
        Fact("tie_embeddings", "tie_word_embeddings", True),
        # The sinusoids are but the first values of the table, which the file holds.
        Unused(("sinusoidal_pos_embds", "tie_weights_")),
        special_tokens(pad=0),
    ),
    rows=(*embeddings(DECODER), *BLOCKS),
    forms={
        "fill-mask": Form(
            ("DistilBertForMaskedLM",),
            masked_head("vocab_transform", "vocab_layer_norm", f"{DECODER}.bias", DECODER),
        ),
        "text-classification": Form(
            ("DistilBertForSequenceClassification",),
            outside(*linear("head/dense", "pre_classifier"), *linear("head/logits", "classifier")),
            _classifier,
        ),
        **span_and_tag_forms("DistilBert"),
        "feature-extraction": Form(("DistilBertModel",), prefixed=False),
    },
    prefix="distilbert",
    ignored=(r"\.position_ids$",),
    renamed=OLD_NORMS,
    presets={
        "distilbert-base-uncased": Preset({}, 66_985_530, "fill-mask"),
        "distilbert-base-cased": Preset({"vocab_size": 28996}, 65_812_036, "fill-mask"),
        "distilbert-base-multilingual-cased": Preset(
            {"vocab_size": 119547}, 135_445_755, "fill-mask"
        ),
    },
    source="https://arxiv.org/abs/1910.01108",
)
