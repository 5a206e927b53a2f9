"""BART (Lewis et al., 2020): post-norm encoder-decoder with learned positions; model card
facebook/bart-large.

The reference keeps `final_logits_bias` as a buffer that is not counted as a parameter; here it is a
weight of the head.
"""

import math
from typing import Any

import numpy as np

from zoo.backbones.config import EncoderDecoderConfig
from zoo.checkpoints.facts import (
    Expect,
    Fact,
    Item,
    Reader,
    Rule,
    Unused,
    activation,
    inherited,
    special_tokens,
)
from zoo.checkpoints.family import Family, Form, Preset
from zoo.checkpoints.table import FLAT, TRANSPOSED, Row, linear, norm, outside, row

SIZES = (
    Fact("vocab_size", "vocab_size", 50265),
    Fact("hidden_dim", "d_model", 1024),
    Fact("num_layers", "encoder_layers", 12),
    Fact("num_decoder_layers", "decoder_layers", 12),
    Fact("num_heads", "encoder_attention_heads", 16),
    Fact("decoder_num_heads", "decoder_attention_heads", 16),
    Fact("intermediate_dim", "encoder_ffn_dim", 4096),
    Fact("decoder_intermediate_dim", "decoder_ffn_dim", 4096),
    Fact("max_length", "max_position_embeddings", 1024),
    activation("activation_function", "gelu"),
    Fact("dropout", "dropout", 0.1),
    Fact("attention_dropout", "attention_dropout", 0.0),
    Fact("tie_embeddings", "tie_word_embeddings", True),
    Expect("is_decoder", (False,), "Its decoder alone is not a model of this zoo."),
    Unused(
        (  # only in training
            "activation_dropout",
            "encoder_layerdrop",
            "decoder_layerdrop",
            "classif_dropout",
            # another name of encoder_layers
            "num_hidden_layers",
            # of early versions; what they say is now the model type
            "add_bias_logits",
            "add_final_layer_norm",
            "do_blenderbot_90_layernorm",
            "extra_pos_embeddings",
            "force_bos_token_to_be_generated",
            "layernorm_variant",
            "normalize_before",
            "normalize_embedding",
            "save_step",
            "static_position_embeddings",
            "unk_token_id",
            "variant",
            "_num_labels",
        )
    ),
)


def items(special: Item, **defaults: Any) -> tuple[Item, ...]:
    """The keys of a relative of BART.

    Args:
        special: Padding, begin and end.
        **defaults: Values of a file without the key, where they are not BART's.
    """
    scaled, start = (
        defaults.pop(name, default)
        for name, default in (("scale_embedding", False), ("decoder_start_token_id", 2))
    )
    width = defaults.get("d_model", 1024)

    def decode(reader: Reader) -> dict[str, Any]:
        first = reader.get("decoder_start_token_id", start)
        on = reader.get("scale_embedding", scaled)
        return {
            "decoder_start_token_id": start if first is None else first,
            "embedding_scale": math.sqrt(reader.get("d_model", width)) if on else None,
        }

    def encode(config: Any) -> dict[str, Any]:
        return {
            "decoder_start_token_id": config.decoder_start_token_id,
            "scale_embedding": config.embedding_scale is not None,
        }

    return (*inherited(SIZES, **defaults), special, Rule(decode, encode))


SPECIAL = special_tokens(pad=1, bos=0, eos=2)
PROJECTIONS = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}


WORDS = row(
    "encoder/embeddings/tokens/table",
    "shared.weight",
    aliases=[
        "model.encoder.embed_tokens.weight",
        "model.decoder.embed_tokens.weight",
        "lm_head.weight",
    ],
)


def stack(side: str, **attentions: str) -> tuple[Row, ...]:
    """The rows of one stack, "encoder" or "decoder" in our paths and in theirs.

    Args:
        side: Which.
        **attentions: Those of a block, ours and theirs.
    """
    block, layer = f"{side}/block_{{i}}", f"{side}.layers.{{i}}"
    rows = [
        row(f"{side}/embeddings/positions/table", f"{side}.embed_positions.weight"),
        *norm(f"{side}/embeddings/norm", f"{side}.layernorm_embedding"),
        *norm(f"{side}/final_norm", f"{side}.layer_norm"),
    ]
    for ours, theirs in attentions.items():
        for part, name in PROJECTIONS.items():
            rows += linear(f"{block}/{ours}/{part}", f"{layer}.{theirs}.{name}")
        rows += norm(f"{block}/{ours}_norm", f"{layer}.{theirs}_layer_norm")
    rows += linear(f"{block}/feed_forward/up", f"{layer}.fc1")
    rows += linear(f"{block}/feed_forward/down", f"{layer}.fc2")
    rows += norm(f"{block}/feed_forward_norm", f"{layer}.final_layer_norm")
    return tuple(rows)


ROWS = (
    *stack("encoder", attention="self_attn"),
    *stack("decoder", attention="self_attn", cross_attention="encoder_attn"),
)
"""Of all relatives: what one of them has no variable for does not count."""


def _zeros(config: Any) -> list[np.ndarray]:
    return [np.zeros(config.vocab_size, "float32")]


HEAD = outside(
    row("head/output/kernel", "lm_head.weight", TRANSPOSED),
    row("head/bias", "final_logits_bias", FLAT, default=_zeros),
)


CLASSIFIER = outside(
    *linear("head/dense", "classification_head.dense"),
    *linear("head/logits", "classification_head.out_proj"),
)


def answering(name: str, model: str = "ForConditionalGeneration") -> dict[str, Form]:
    """The task of writing an answer; a file of the bare model has its head, which is tied."""
    return {"text2text-generation": Form((name + model, f"{name}Model"), HEAD)}


def classifying(name: str) -> dict[str, Form]:
    """Classes from the decoder's state at the text's last token, its end."""
    head = {"pooling": "last", "hidden_activation": "tanh"}
    return {"text-classification": Form((f"{name}ForSequenceClassification",), CLASSIFIER, head)}


def size(
    width: int, layers: tuple[int, int], heads: int, inner: int, **more: Any
) -> dict[str, Any]:
    """Keys of a published shape; `layers` are the encoder's and the decoder's."""
    sizes = {"layers": layers, "attention_heads": (heads, heads), "ffn_dim": (inner, inner)}
    sides = ("encoder", "decoder")
    keys = {f"{side}_{k}": v[i] for k, v in sizes.items() for i, side in enumerate(sides)}
    return {"d_model": width, **keys, **more}


IGNORED = (r"(^|\.)(encoder|decoder)\.version$",)

FAMILY = Family(
    model_type="bart",
    config=EncoderDecoderConfig,
    fixed={
        "norm_position": "post",
        "position_offset": 2,
        "embedding_norm": True,
        "logit_bias": True,
    },
    items=items(SPECIAL),
    rows=(WORDS, *ROWS),
    forms={**answering("Bart"), **classifying("Bart")},
    prefix="model",
    ignored=IGNORED,
    presets={
        "bart-base": Preset(
            size(768, (6, 6), 12, 3072), 139_420_416 + 50_265, "text2text-generation"
        ),
        "bart-large": Preset({}, 406_291_456 + 50_265, "text2text-generation"),
    },
    source="https://arxiv.org/abs/1910.13461",
)
