"""DeBERTa v2 and v3 (He et al., 2021, 2023): BERT with disentangled attention; model card
microsoft/deberta-v3-base.
"""

from typing import Any

from zoo.backbones.config import EncoderConfig
from zoo.checkpoints.facts import (
    ACTIVATIONS,
    Expect,
    Fact,
    Reader,
    Rule,
    Unused,
    inherited,
    special_tokens,
)
from zoo.checkpoints.family import Family, Form, Preset
from zoo.checkpoints.table import linear, norm, outside, row
from zoo.families.bert import (
    AFTER_ATTENTION,
    BLOCK,
    DECODER,
    FIXED,
    LAYER,
    OLD_NORMS,
    PREDICTIONS,
    SIZES,
    embeddings,
    masked_head,
    span_and_tag_forms,
)

TERMS = {"c2p": "content_to_position", "p2c": "position_to_content"}
ATTENTION = f"{LAYER}.attention.self"
LATER = "lm_predictions.lm_head"  # the head's name since `legacy` is off


def _decode_terms(reader: Reader) -> dict[str, Any]:
    """Which terms the scores have; all of them are scaled down together."""
    kinds = reader.get("pos_att_type", None) or []
    kinds = kinds.split("|") if isinstance(kinds, str) else kinds
    kinds = {kind.strip().lower() for kind in kinds}
    relative = reader.get("relative_attention", False)
    if not kinds <= set(TERMS) or relative != bool(kinds):
        raise reader.refuse(
            "pos_att_type",
            f"is not supported, expected some of {list(TERMS)} with relative_attention, else none",
        )
    heads = reader.get("num_attention_heads", 12)
    width = reader.get("attention_head_size", None) or reader.get("hidden_size", 1536) // heads
    facts = {"head_dim": width, "attention_scale": (width * (1 + len(kinds))) ** -0.5}
    if relative:
        terms = tuple(ours for theirs, ours in TERMS.items() if theirs in kinds)
        facts |= {"position_bias": "disentangled", "disentangled_terms": terms}
    return facts


def _encode_terms(config: EncoderConfig) -> dict[str, Any]:
    relative = config.position_bias == "disentangled"
    kinds = [theirs for theirs, ours in TERMS.items() if ours in config.disentangled_terms]
    written: dict[str, Any] = {
        "relative_attention": relative,
        "pos_att_type": kinds[::-1] if relative else None,
    }
    if config.head_dim * config.num_heads != config.hidden_dim:
        written["attention_head_size"] = config.head_dim
    return written


def _decode_distances(reader: Reader) -> dict[str, Any]:
    most = reader.get("max_relative_positions", -1)
    most = most if most >= 1 else reader.get("max_position_embeddings", 512)
    buckets = reader.get("position_buckets", -1)
    norms = (reader.get("norm_rel_ebd", None) or "none").lower().split("|")
    facts = {
        "relative_buckets": buckets if buckets > 0 else most,
        "relative_max_distance": most if buckets > 0 else None,
        "distance_norm": "layer_norm" in [part.strip() for part in norms],
        "distance_projections": not reader.get("share_att_key", False),
    }
    return facts if reader.get("relative_attention", False) else {}


def _encode_distances(config: EncoderConfig) -> dict[str, Any]:
    if config.position_bias != "disentangled":
        return {}
    far, whole = config.relative_max_distance, config.max_length
    most = config.relative_buckets if far is None else far
    return {
        "max_relative_positions": -1 if most == whole else most,
        "position_buckets": -1 if far is None else config.relative_buckets,
        "norm_rel_ebd": "layer_norm" if config.distance_norm else "none",
        "share_att_key": not config.distance_projections,
    }


def _same_width(reader: Reader) -> dict[str, Any]:
    for name in ("embedding_size", "pooler_hidden_size"):
        if reader.get(name, None) not in (None, reader.get("hidden_size", 1536)):
            raise reader.refuse(name, "is not supported, expected that of hidden_size")
    return {}


def _classifier(reader: Reader) -> dict[str, Any]:
    activation = ACTIVATIONS[reader.get("pooler_hidden_act", "gelu")]
    return {"pooling": "cls", "hidden_activation": activation}


def masked_form(dense: str, norm_name: str, bias: str, **facts: Any) -> Form:
    """A masked-language head under one of its two names."""
    return Form(("DebertaV2ForMaskedLM",), masked_head(dense, norm_name, bias, DECODER), **facts)


def v3(hidden: int, heads: int, layers: int, **keys: Any) -> dict[str, Any]:
    """The keys of a published size of v3."""
    return {
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "intermediate_size": 4 * hidden,
        "relative_attention": True,
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": "p2c|c2p",
        "position_biased_input": False,
        **keys,
    }


FAMILY = Family(
    model_type="deberta-v2",
    config=EncoderConfig,
    fixed=FIXED,
    items=(
        *inherited(
            SIZES,
            vocab_size=128100,
            hidden_size=1536,
            num_hidden_layers=24,
            num_attention_heads=24,
            intermediate_size=6144,
            layer_norm_eps=1e-7,
        ),
        Rule(_decode_terms, _encode_terms),
        Rule(_decode_distances, _encode_distances),
        Fact(
            "positions",
            "position_biased_input",
            True,
            lambda on: "learned" if on else "none",
            lambda positions: positions == "learned",
        ),
        Fact("token_types", "type_vocab_size", 0),
        Fact("tie_embeddings", "tie_word_embeddings", True),
        Expect(
            "conv_kernel_size",
            (0,),
            "There is no convolution here, and v3 has none.",
            written=False,
        ),
        Rule(_same_width),
        Unused(("legacy", "pooler_dropout", "cls_dropout", "conv_act", "conv_groups")),
        special_tokens(pad=0),
    ),
    rows=(
        *embeddings(DECODER, unused=("deberta.embeddings.position_embeddings.weight",)),
        *linear(f"{BLOCK}/attention/query", f"{ATTENTION}.query_proj"),
        *linear(f"{BLOCK}/attention/key", f"{ATTENTION}.key_proj"),
        *linear(f"{BLOCK}/attention/value", f"{ATTENTION}.value_proj"),
        *linear(f"{BLOCK}/attention/distance_query", f"{ATTENTION}.pos_query_proj"),
        *linear(f"{BLOCK}/attention/distance_key", f"{ATTENTION}.pos_key_proj"),
        *AFTER_ATTENTION,
        row("encoder/relative_states/table/table", "encoder.rel_embeddings.weight"),
        *norm("encoder/relative_states/norm", "encoder.LayerNorm"),
    ),
    forms={
        "fill-mask": masked_form(
            f"{PREDICTIONS}.transform.dense",
            f"{PREDICTIONS}.transform.LayerNorm",
            f"{PREDICTIONS}.bias",
        ),
        "text-classification": Form(
            ("DebertaV2ForSequenceClassification",),
            outside(*linear("head/dense", "pooler.dense"), *linear("head/logits", "classifier")),
            _classifier,
        ),
        **span_and_tag_forms("DebertaV2"),
        "feature-extraction": Form(("DebertaV2Model",), prefixed=False),
    },
    variants={
        "fill-mask": masked_form(
            f"{LATER}.dense",
            f"{LATER}.LayerNorm",
            f"{LATER}.bias",
            when=lambda values: not values.get("legacy", True),
        )
    },
    prefix="deberta",
    ignored=(r"\.position_ids$", r"(^|\.)mask_predictions\."),
    renamed=(
        *OLD_NORMS,
        (r"^lm_predictions\.lm_head\.(dense|LayerNorm)\.", r"cls.predictions.transform.\1."),
        (r"^lm_predictions\.lm_head\.bias$", "cls.predictions.bias"),
    ),
    presets={
        "deberta-v3-xsmall": Preset(v3(384, 6, 12), 70_682_112, "feature-extraction"),
        "deberta-v3-small": Preset(v3(768, 12, 6), 141_304_320, "feature-extraction"),
        "deberta-v3-base": Preset(v3(768, 12, 12), 183_831_552, "feature-extraction"),
        "deberta-v3-large": Preset(v3(1024, 16, 24), 434_012_160, "feature-extraction"),
        "mdeberta-v3-base": Preset(
            v3(768, 12, 12, vocab_size=251000), 278_218_752, "feature-extraction"
        ),
    },
    source="https://arxiv.org/abs/2111.09543",
)
