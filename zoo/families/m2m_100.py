"""M2M-100 (Fan et al., 2021) and NLLB-200 (NLLB Team, 2022): translators between many languages,
with the norms first and sinusoids that are counted from the padding's id; model cards
facebook/m2m100_418M and facebook/nllb-200-distilled-600M.

The language to write in is the first token (`forced_bos_token_id`).
"""

import dataclasses
from typing import Any

from zoo.checkpoints.facts import Reader, Rule
from zoo.checkpoints.family import Preset
from zoo.families.bart import FAMILY as BART
from zoo.families.bart import SPECIAL, answering, items
from zoo.families.marian import SINUSOIDS

TASK = "text2text-generation"
DEEP = {"encoder_layers": 24, "decoder_layers": 24}
WIDE = {"encoder_ffn_dim": 8192, "decoder_ffn_dim": 8192}
NLLB = {"vocab_size": 256206}


def _decode_offset(reader: Reader) -> dict[str, Any]:
    pad = reader.get("pad_token_id", 1)
    return {"position_offset": 1 + (1 if pad is None else pad)}


FAMILY = dataclasses.replace(
    BART,
    model_type="m2m_100",
    fixed={"positions": "sinusoidal", "sinusoid_form": "tensor2tensor"},
    items=(
        *items(
            SPECIAL,
            vocab_size=128112,
            activation_function="relu",
            attention_dropout=0.1,
            scale_embedding=True,
        ),
        Rule(_decode_offset),
    ),
    forms=answering("M2M100"),
    ignored=SINUSOIDS,
    presets={
        "m2m100_418M": Preset({}, 483_905_536, TASK),
        "m2m100_1.2B": Preset({**DEEP, **WIDE}, 1_239_470_080, TASK),
        "nllb-200-distilled-600M": Preset(NLLB, 615_073_792, TASK),
        "nllb-200-distilled-1.3B": Preset({**NLLB, **DEEP, **WIDE}, 1_370_638_336, TASK),
        "nllb-200-3.3B": Preset({**NLLB, **DEEP, **WIDE, "d_model": 2048}, 3_344_863_232, TASK),
    },
    source="https://arxiv.org/abs/2010.11125",
)
