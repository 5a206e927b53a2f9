"""Blenderbot (Roller et al., 2021): a small encoder and a large decoder with the norms first; model
card facebook/blenderbot-3B.
"""

import dataclasses

from zoo.checkpoints.facts import special_tokens
from zoo.checkpoints.family import Preset
from zoo.families.bart import FAMILY as BART
from zoo.families.bart import answering, items, size

TASK = "text2text-generation"

FAMILY = dataclasses.replace(
    BART,
    model_type="blenderbot",
    fixed={"logit_bias": True},
    items=items(
        special_tokens(pad=0, bos=1, eos=2),
        vocab_size=8008,
        max_position_embeddings=128,
        decoder_start_token_id=1,
        **size(2560, (2, 24), 32, 10240),
    ),
    forms=answering("Blenderbot"),
    presets={
        "blenderbot-400M-distill": Preset(
            size(1280, (2, 12), 32, 5120, scale_embedding=True), 364_802_560 + 8008, TASK
        ),
        "blenderbot-1B-distill": Preset(
            {"decoder_layers": 12, "scale_embedding": True}, 1_437_393_920 + 8008, TASK
        ),
        "blenderbot-3B": Preset({"scale_embedding": True}, 2_696_268_800 + 8008, TASK),
    },
    source="https://arxiv.org/abs/2004.13637",
)
