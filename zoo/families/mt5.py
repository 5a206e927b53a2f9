"""mT5 (Xue et al., 2021): T5 1.1 for a hundred languages; model card google/mt5-small."""

import dataclasses

from zoo.checkpoints.facts import inherited
from zoo.checkpoints.family import Preset
from zoo.families.t5 import FAMILY as T5
from zoo.families.t5 import REST, SIZES, TASK, feed_forward, forms, size

OWN_HEAD = {"tie_word_embeddings": False}

FAMILY = dataclasses.replace(
    T5,
    model_type="mt5",
    items=(
        *inherited(SIZES, vocab_size=250112, d_ff=1024, num_layers=8, num_heads=6),
        feed_forward("gated-gelu"),
        *REST,
    ),
    forms=forms("MT5"),
    presets={
        "mt5-small": Preset(OWN_HEAD, 300_176_768, TASK),
        "mt5-base": Preset(size(768, 12, 12, 2048, **OWN_HEAD), 582_401_280, TASK),
        "mt5-large": Preset(size(1024, 24, 16, 2816, **OWN_HEAD), 1_229_581_312, TASK),
        "mt5-xl": Preset(size(2048, 24, 32, 5120, **OWN_HEAD), 3_742_619_648, TASK),
        "mt5-xxl": Preset(size(4096, 24, 64, 10240, **OWN_HEAD), 12_921_057_280, TASK),
    },
    source="https://arxiv.org/abs/2010.11934",
)
