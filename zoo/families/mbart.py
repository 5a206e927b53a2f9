"""mBART (Liu et al., 2020) and mBART-50 (Tang et al., 2020): BART with the norms first and one at
the end; model card facebook/mbart-large-50.

A multilingual model is told the language to write in by its first token (`forced_bos_token_id`).
"""

import dataclasses

from zoo.checkpoints.family import Preset
from zoo.families.bart import FAMILY as BART
from zoo.families.bart import SPECIAL, answering, classifying, items

TASK = "text2text-generation"

FAMILY = dataclasses.replace(
    BART,
    model_type="mbart",
    fixed={"position_offset": 2, "embedding_norm": True, "logit_bias": True},
    items=items(SPECIAL),
    forms={**answering("MBart"), **classifying("MBart")},
    presets={
        "mbart-large-cc25": Preset(
            {"vocab_size": 250027, "scale_embedding": True}, 610_851_840 + 250_027, TASK
        ),
        "mbart-large-50": Preset(
            {"vocab_size": 250054, "scale_embedding": True, "activation_function": "relu"},
            610_879_488 + 250_054,
            TASK,
        ),
    },
    source="https://arxiv.org/abs/2001.08210",
)
