"""Marian (Junczys-Dowmunt et al., 2018), the form of the OPUS-MT translators: post-norm with
sinusoidal positions; model card Helsinki-NLP/opus-mt-en-de.

The reference counts its tables of sinusoids as parameters, which its files do not hold.
"""

import dataclasses
from typing import Any

from zoo.checkpoints.facts import Fact, Reader, Rule, special_tokens
from zoo.checkpoints.family import Preset
from zoo.checkpoints.table import row
from zoo.families.bart import FAMILY as BART
from zoo.families.bart import IGNORED, ROWS, WORDS, answering, items, size

SINUSOIDS = (*IGNORED, r"(^|\.)embed_positions\.weights?$")
"""Tables that some files hold though they follow from the config."""


def _decode_vocabulary(reader: Reader) -> dict[str, Any]:
    own = reader.get("decoder_vocab_size", None)
    if own not in (None, reader.get("vocab_size", 58101)):
        raise reader.refuse(
            "decoder_vocab_size", "is not supported, expected that of vocab_size for both sides"
        )
    return {}


def _unshared(config: Any) -> bool:
    return not config.share_embeddings


FAMILY = dataclasses.replace(
    BART,
    model_type="marian",
    fixed={"positions": "sinusoidal", "norm_position": "post", "logit_bias": True},
    items=(
        *items(special_tokens(pad=58100, eos=0), vocab_size=58101, decoder_start_token_id=58100),
        Fact("share_embeddings", "share_encoder_decoder_embeddings", True),
        Rule(_decode_vocabulary, lambda config: {"decoder_vocab_size": config.vocab_size}),
    ),
    rows=(
        dataclasses.replace(WORDS, when=lambda config: config.share_embeddings),
        *ROWS,
        row("encoder/embeddings/tokens/table", "encoder.embed_tokens.weight", when=_unshared),
        row(
            "decoder/embeddings/tokens/table",
            "decoder.embed_tokens.weight",
            aliases=["lm_head.weight"],
            when=_unshared,
        ),
    ),
    forms=answering("Marian", "MTModel"),
    ignored=SINUSOIDS,
    presets={
        "opus-mt-en-de": Preset(
            size(
                512,
                (6, 6),
                8,
                2048,
                max_position_embeddings=512,
                activation_function="swish",
                scale_embedding=True,
            ),
            74_410_496 - 2 * 512 * 512 + 58_101,
            "text2text-generation",
        ),
    },
    source="https://aclanthology.org/P18-4020",
)
