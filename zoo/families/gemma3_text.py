"""Gemma 3's text models (Gemma Team, 2025): Gemma 2 with norms of queries and keys in the place of
soft caps, and rotary bases of their own for local layers; model card google/gemma-3-1b-pt.
"""

import dataclasses

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import Fact, Reader, Unused, inherited
from zoo.checkpoints.family import Family
from zoo.checkpoints.rotary import rotary_by_window
from zoo.checkpoints.windows import layer_windows
from zoo.families import gemma, gemma2, llama, qwen3


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
        Unused(("attn_logit_softcapping",)),
        Unused(("_sliding_window_pattern", "sliding_window_pattern")),  # layer_types decides
        rotary_by_window(1e6, 1e4, "rope_theta", "rope_local_base_freq"),
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
