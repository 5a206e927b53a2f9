"""Cases of the encoder-decoders."""

import dataclasses
from typing import Any

from .cases import Case, Family
from .encoders import CLASSES

T5: dict[str, Any] = {
    "vocab_size": 99,
    "d_model": 36,
    "d_kv": 10,
    "d_ff": 53,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
BART: dict[str, Any] = {
    "vocab_size": 99,
    "d_model": 36,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 53,
    "decoder_ffn_dim": 53,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
LONG = (1, 9, 24)
SINUSOIDS = r"embed_positions\.weight$"
"""A table of constants, which the reference works out where a file lacks it."""
HEAD = {"lm_head.weight": (99, 36)}
V11 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}


def shared(prefix: str = "", source: str = "shared.weight") -> dict[str, str]:
    """The shared embedding once more under the stacks' names, as older files have it."""
    names = (f"{prefix}encoder.embed_tokens.weight", f"{prefix}decoder.embed_tokens.weight")
    return dict.fromkeys(names, f"{prefix}{source}")


def bart_like(
    prefix: str, architecture: str = "", unused: str = "", **cases: Case
) -> dict[str, Case]:
    """What all of BART's relatives have."""
    name = architecture or f"{prefix}ForConditionalGeneration"
    rows = {
        "plain": Case(name, {}, golden=True),
        "scaled-relu": Case(name, {"scale_embedding": True, "activation_function": "relu"}),
        "unscaled-gelu": Case(name, {"scale_embedding": False, "activation_function": "gelu"}),
        "hub-file": Case(
            name, {}, copies={**shared("model."), "lm_head.weight": "model.shared.weight"}
        ),
        "swish": Case(name, {"activation_function": "swish"}),
        "different-stacks": Case(
            name, {"decoder_attention_heads": 6, "decoder_ffn_dim": 41, "decoder_layers": 1}
        ),
        **{key.replace("_", "-"): case for key, case in cases.items()},
    }
    return {key: dataclasses.replace(case, unused=unused) for key, case in rows.items()}


ENCODER_DECODERS: dict[str, Family] = {
    "t5": Family(
        "encoder.block",
        T5,
        {
            "plain": Case("T5ForConditionalGeneration", {}, golden=True),
            "hub-file": Case(
                "T5ForConditionalGeneration",
                {},
                extra={
                    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": (8, 3)
                },
                copies={**shared(), "lm_head.weight": "shared.weight"},
            ),
            "v1.1-hub-file": Case(
                "T5ForConditionalGeneration", V11, raw_config=True, extra=HEAD, copies=shared()
            ),
            "long": Case("T5ForConditionalGeneration", {}, lengths=LONG, target_lengths=(18, 1, 7)),
            "gated-tied": Case("T5ForConditionalGeneration", {"feed_forward_proj": "gated-gelu"}),
            "v1.1": Case(
                "T5ForConditionalGeneration", V11, raw_config=True, extra=HEAD, golden=True
            ),
            "gated-silu": Case("T5ForConditionalGeneration", {"feed_forward_proj": "gated-silu"}),
            "sharded": Case("T5ForConditionalGeneration", {}, shard_bytes=30_000),
            "bfloat16": Case("T5ForConditionalGeneration", {}, dtype="bfloat16", greedy=False),
            "encoder-alone": Case("T5EncoderModel", {}),
            "classification": Case("T5ForSequenceClassification", CLASSES, ends=True),
        },
        decoder_layers="decoder.block",
    ),
    "mt5": Family(
        "encoder.block",
        {**T5, "feed_forward_proj": "gated-gelu"},
        {
            "untied": Case(
                "MT5ForConditionalGeneration",
                {"tie_word_embeddings": False},
                raw_config=True,
                extra=HEAD,
                golden=True,
            ),
            "tied": Case("MT5ForConditionalGeneration", {"tie_word_embeddings": True}),
            "long": Case("MT5ForConditionalGeneration", {}, lengths=LONG),
        },
        decoder_layers="decoder.block",
    ),
    "bart": Family(
        "encoder.layers",
        BART,
        bart_like(
            "Bart",
            bare_names=Case(
                "BartForConditionalGeneration", {}, prefixed=False, extra={"encoder.version": (1,)}
            ),
            sharded=Case("BartForConditionalGeneration", {}, shard_bytes=30_000),
            classification=Case("BartForSequenceClassification", CLASSES, ends=True),
        ),
        decoder_layers="decoder.layers",
    ),
    "mbart": Family(
        "encoder.layers",
        {**BART, "scale_embedding": True},
        bart_like(
            "MBart",
            classification=Case("MBartForSequenceClassification", CLASSES, ends=True),
        ),
        decoder_layers="decoder.layers",
    ),
    "pegasus": Family(
        "encoder.layers",
        {
            **BART,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "decoder_start_token_id": 0,
            "bos_token_id": None,
            "scale_embedding": True,
            "activation_function": "relu",
        },
        bart_like("Pegasus", unused=SINUSOIDS),
        decoder_layers="decoder.layers",
    ),
    "marian": Family(
        "encoder.layers",
        {
            **BART,
            "pad_token_id": 98,
            "eos_token_id": 0,
            "decoder_start_token_id": 98,
            "bos_token_id": None,
            "scale_embedding": True,
            "activation_function": "swish",
        },
        bart_like(
            "Marian",
            "MarianMTModel",
            two_vocabularies=Case(
                "MarianMTModel",
                {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 99},
                required=False,
            ),
        ),
        decoder_layers="decoder.layers",
    ),
    "m2m_100": Family(
        "encoder.layers",
        {**BART, "scale_embedding": True, "activation_function": "relu"},
        bart_like(
            "M2M100",
            sinusoids_in_file=Case(
                "M2M100ForConditionalGeneration",
                {},
                extra={
                    "model.encoder.embed_positions.weights": (42, 36),
                    "model.decoder.embed_positions.weights": (42, 36),
                },
            ),
        ),
        decoder_layers="decoder.layers",
    ),
    "blenderbot": Family(
        "encoder.layers",
        {
            **BART,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
        bart_like("Blenderbot"),
        decoder_layers="decoder.layers",
    ),
}
