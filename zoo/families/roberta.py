"""RoBERTa (Liu et al., 2019): BERT whose positions begin behind the padding's row; model card
FacebookAI/roberta-base.
"""

from typing import Any

from zoo.backbones.config import EncoderConfig
from zoo.checkpoints.facts import Fact, Reader, Rule, inherited, special_tokens
from zoo.checkpoints.family import Family, Form, Preset
from zoo.checkpoints.table import Row, linear, outside
from zoo.families.bert import (
    BLOCKS,
    ENCODER_ONLY,
    FIXED,
    OLD_NORMS,
    SIZES,
    embeddings,
    masked_head,
    span_and_tag_forms,
)

DECODER = "lm_head.decoder"


def _decode_positions(reader: Reader) -> dict[str, Any]:
    first = reader.get("pad_token_id", 1) + 1
    return {
        "position_offset": first,
        "max_length": reader.get("max_position_embeddings", 512) - first,
    }


POSITIONS = Rule(
    _decode_positions,
    lambda config: {"max_position_embeddings": config.max_length + config.position_offset},
)
ITEMS = (
    *inherited(SIZES, without=("max_position_embeddings",), vocab_size=50265),
    *ENCODER_ONLY,
    POSITIONS,
    Fact("token_types", "type_vocab_size", 2),
    Fact("tie_embeddings", "tie_word_embeddings", True),
    special_tokens(pad=1, bos=0, eos=2),
)
CLASSIFIER: tuple[Row, ...] = outside(
    *linear("head/dense", "classifier.dense"), *linear("head/logits", "classifier.out_proj")
)


def forms(name: str) -> dict[str, Form]:
    """The tasks of an encoder whose heads are named in the manner of RoBERTa."""
    return {
        "fill-mask": Form(
            (f"{name}ForMaskedLM",),
            masked_head("lm_head.dense", "lm_head.layer_norm", "lm_head.bias", DECODER),
        ),
        "text-classification": Form(
            (f"{name}ForSequenceClassification",),
            CLASSIFIER,
            {"pooling": "cls", "hidden_activation": "tanh"},
        ),
        **span_and_tag_forms(name),
        "feature-extraction": Form((f"{name}Model",), prefixed=False),
    }


NAMED = {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}

FAMILY = Family(
    model_type="roberta",
    config=EncoderConfig,
    fixed=FIXED,
    items=ITEMS,
    rows=(*embeddings(DECODER), *BLOCKS),
    forms=forms("Roberta"),
    prefix="roberta",
    ignored=(r"\.position_ids$", r"^(roberta\.)?pooler\."),
    renamed=OLD_NORMS,
    presets={
        "roberta-base": Preset(NAMED, 124_697_433, "fill-mask"),
        "roberta-large": Preset({**NAMED, **LARGE}, 355_412_057, "fill-mask"),
        "distilroberta-base": Preset({**NAMED, "num_hidden_layers": 6}, 82_170_201, "fill-mask"),
    },
    source="https://arxiv.org/abs/1907.11692",
)
