"""CamemBERT (Martin et al., 2020): RoBERTa in French; model card almanach/camembert-base."""

import dataclasses

from zoo.checkpoints.facts import inherited
from zoo.checkpoints.family import Preset
from zoo.families import roberta
from zoo.families.roberta import LARGE, NAMED

CAMEMBERT = {**NAMED, "vocab_size": 32005}

FAMILY = dataclasses.replace(
    roberta.FAMILY,
    model_type="camembert",
    items=inherited(roberta.ITEMS, vocab_size=30522),
    forms=roberta.forms("Camembert"),
    presets={
        "camembert-base": Preset(CAMEMBERT, 110_655_493, "fill-mask"),
        "camembert-large": Preset({**CAMEMBERT, **LARGE}, 336_695_557, "fill-mask"),
    },
    source="https://arxiv.org/abs/1911.03894",
)
