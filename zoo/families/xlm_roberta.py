"""XLM-RoBERTa (Conneau et al., 2020): RoBERTa in 100 languages; model card
FacebookAI/xlm-roberta-base.
"""

import dataclasses

from zoo.checkpoints.facts import inherited
from zoo.checkpoints.family import Preset
from zoo.families import roberta
from zoo.families.roberta import LARGE, NAMED

XLM = {**NAMED, "vocab_size": 250002}

FAMILY = dataclasses.replace(
    roberta.FAMILY,
    model_type="xlm-roberta",
    items=inherited(roberta.ITEMS, vocab_size=30522),
    forms=roberta.forms("XLMRoberta"),
    presets={
        "xlm-roberta-base": Preset(XLM, 278_295_186, "fill-mask"),
        "xlm-roberta-large": Preset({**XLM, **LARGE}, 560_142_482, "fill-mask"),
    },
    source="https://arxiv.org/abs/1911.02116",
)
