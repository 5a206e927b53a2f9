"""PEGASUS (Zhang et al., 2020): the norms first, positions in tables that begin as sinusoids; model
card google/pegasus-large.

The reference reads these tables from the file and does not train them. Here they are learned
positions, computed where a file lacks them.
"""

import dataclasses
from typing import Any

import numpy as np

from zoo.checkpoints.facts import special_tokens
from zoo.checkpoints.family import Preset
from zoo.families.bart import FAMILY as BART
from zoo.families.bart import answering, items


def _sinusoids(config: Any) -> list[np.ndarray]:
    from zoo.layers.positions import sinusoids  # here, so that families are listed without Keras

    return [sinusoids(config.max_length, config.hidden_dim)]


def _with_sinusoids(entry: Any) -> Any:
    positions = entry.ours[0].endswith("positions/table")
    return dataclasses.replace(entry, default=_sinusoids) if positions else entry


FAMILY = dataclasses.replace(
    BART,
    model_type="pegasus",
    fixed={"logit_bias": True},
    items=items(special_tokens(pad=0, eos=1), decoder_start_token_id=0),
    rows=tuple(map(_with_sinusoids, BART.rows)),
    forms=answering("Pegasus"),
    presets={
        "pegasus-large": Preset(
            {
                "vocab_size": 96103,
                "encoder_layers": 16,
                "decoder_layers": 16,
                "activation_function": "relu",
                "scale_embedding": True,
            },
            570_797_056 + 96_103,
            "text2text-generation",
        ),
    },
    source="https://arxiv.org/abs/1912.08777",
)
