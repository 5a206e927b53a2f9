"""ELECTRA (Clark et al., 2020): BERT with a narrow embedding, as a generator of masked tokens and a
discriminator of replaced ones; model card google/electra-small-discriminator.
"""

from typing import Any

from zoo.backbones.config import EncoderConfig
from zoo.checkpoints.facts import ACTIVATIONS, Fact, Reader, inherited, special_tokens
from zoo.checkpoints.family import Family, Form, Preset
from zoo.checkpoints.table import TRANSPOSED, linear, norm, outside, row
from zoo.families.bert import (
    BLOCKS,
    ENCODER_ONLY,
    FIXED,
    OLD_NORMS,
    SIZES,
    embeddings,
    span_and_tag_forms,
)
from zoo.families.roberta import CLASSIFIER

DECODER = "generator_lm_head"
FOUND = "discriminator_predictions"


def _discriminator(reader: Reader) -> dict[str, Any]:
    return {"hidden_activation": ACTIVATIONS[reader.get("hidden_act", "gelu")], "dropout": 0.0}


BASE = {
    "embedding_size": 768,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
LARGE = {
    "embedding_size": 1024,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}

FAMILY = Family(
    model_type="electra",
    config=EncoderConfig,
    fixed={**FIXED, "head_activation": "gelu"},
    items=(
        *inherited(SIZES, hidden_size=256, num_attention_heads=4, intermediate_size=1024),
        *ENCODER_ONLY,
        Fact("embedding_dim", "embedding_size", 128),
        Fact("token_types", "type_vocab_size", 2),
        Fact("tie_embeddings", "tie_word_embeddings", True),
        special_tokens(pad=0),
    ),
    rows=(
        *embeddings(DECODER),
        *linear("encoder/embeddings/projection", "embeddings_project"),
        *BLOCKS,
    ),
    forms={
        "fill-mask": Form(
            ("ElectraForMaskedLM",),
            outside(
                *linear("head/dense", "generator_predictions.dense"),
                *norm("head/norm", "generator_predictions.LayerNorm"),
                row("head/bias", f"{DECODER}.bias"),
                row("head/output/kernel", f"{DECODER}.weight", TRANSPOSED),
            ),
        ),
        "text-classification": Form(
            ("ElectraForSequenceClassification",),
            CLASSIFIER,
            {"pooling": "cls", "hidden_activation": "gelu"},
        ),
        **span_and_tag_forms("Electra"),
        "feature-extraction": Form(("ElectraModel",), prefixed=False),
    },
    variants={
        "token-classification": Form(
            ("ElectraForPreTraining",),
            outside(
                *linear("head/dense", f"{FOUND}.dense"),
                *linear("head/logits", f"{FOUND}.dense_prediction"),
            ),
            _discriminator,
            labels=("replaced",),
            when=lambda values: "ElectraForPreTraining" in (values.get("architectures") or ()),
        )
    },
    prefix="electra",
    ignored=(r"\.position_ids$",),
    renamed=OLD_NORMS,
    presets={
        "electra-small-discriminator": Preset({}, 13_483_008, "feature-extraction"),
        "electra-base-discriminator": Preset(BASE, 108_891_648, "feature-extraction"),
        "electra-large-discriminator": Preset(LARGE, 334_092_288, "feature-extraction"),
        "electra-small-generator": Preset({}, 13_546_682, "fill-mask"),
        "electra-base-generator": Preset({"embedding_size": 768}, 33_740_602, "fill-mask"),
        "electra-large-generator": Preset(
            {"embedding_size": 1024, "num_hidden_layers": 24}, 51_295_290, "fill-mask"
        ),
    },
    source="https://arxiv.org/abs/2003.10555",
)
