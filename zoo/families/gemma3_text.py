"""Gemma 3's text models (Gemma Team, 2025): Gemma 2 with norms of queries and keys in the place of
soft caps, and rotary bases of their own for local layers; model card google/gemma-3-1b-pt.
"""

import dataclasses
from typing import Any

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import Fact, Reader, Rule, Unused, inherited
from zoo.checkpoints.family import Family
from zoo.checkpoints.rotary import scaling_of, written_scaling
from zoo.checkpoints.windows import layer_windows
from zoo.families import gemma, gemma2, llama, qwen3

GLOBAL, LOCAL = "full_attention", "sliding_attention"


def _decode_rotary(reader: Reader) -> dict[str, Any]:
    nested = reader.get("rope_parameters", None) or {}
    if not set(nested) <= {GLOBAL, LOCAL}:
        raise reader.refuse("rope_parameters", f"is not supported, expected {GLOBAL} and {LOCAL}")
    everywhere = {**(nested.get(GLOBAL) or {}), **(reader.get("rope_scaling", None) or {})}
    near = nested.get(LOCAL) or {}
    if near.get("rope_type", "default") != "default":
        raise reader.refuse("rope_parameters", f"is not supported: {LOCAL} is not stretched here")
    bases = reader.get("rope_theta", 1e6), reader.get("rope_local_base_freq", 1e4)
    return {
        "rotary_base": float(everywhere.get("rope_theta", bases[0])),
        "rotary_scaling": scaling_of(reader, everywhere),
        "local_rotary_base": float(near.get("rope_theta", bases[1])),
    }


def _encode_rotary(config: Any) -> dict[str, Any]:
    scaling = written_scaling(config) or {"rope_type": "default"}
    return {
        "rope_parameters": {
            GLOBAL: {"rope_theta": config.rotary_base, **scaling},
            LOCAL: {"rope_theta": config.local_rotary_base, "rope_type": "default"},
        }
    }


def _sees_all(reader: Reader, i: int) -> bool:
    return (i + 1) % reader.get("sliding_window_pattern", 6) == 0


FORMS = llama.forms("Gemma3", (*gemma.NO_QUESTIONS, "token-classification"))
CLASSES = {
    "text-classification": (
        "Gemma3TextForSequenceClassification",
        "Gemma3ForSequenceClassification",
    ),
    "feature-extraction": ("Gemma3TextModel",),
}
SMALL = {"sliding_window": 512, "vocab_size": 262144, "max_position_embeddings": 32768}

FAMILY = Family(
    model_type="gemma3_text",
    config=DecoderConfig,
    fixed={**gemma2.FIXED, "qk_norm": "rms"},
    items=(
        *inherited(gemma2.SIZES, vocab_size=262208, max_position_embeddings=131072),
        layer_windows(4096, _sees_all),
        Fact("logit_softcap", "final_logit_softcapping", None),
        # The reference keeps a cap of attention's scores and does not use it.
        Unused(("attn_logit_softcapping", "_sliding_window_pattern")),
        Rule(_decode_rotary, _encode_rotary),
        gemma.TOKENS,
    ),
    rows=(*gemma2.ROWS, *qwen3.QUERY_AND_KEY_NORMS),
    forms={
        task: dataclasses.replace(form, architectures=CLASSES.get(task, form.architectures))
        for task, form in FORMS.items()
    },
    prefix="model",
    presets={
        "gemma-3-270m": gemma2.gemma_2(268_098_176, 640, 2048, 18, (4, 1), **SMALL),
        "gemma-3-1b": gemma2.gemma_2(999_885_952, 1152, 6912, 26, (4, 1), **SMALL),
    },
    source="https://arxiv.org/abs/2503.19786",
)
