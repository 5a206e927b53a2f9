"""MPNet (Song et al., 2020): BERT with learned positions and T5's relative bias; model card
microsoft/mpnet-base.
"""

from zoo.backbones.config import EncoderConfig
from zoo.checkpoints.facts import Expect, Fact, Rule, inherited, special_tokens
from zoo.checkpoints.family import Family, Preset
from zoo.checkpoints.table import linear, norm, row
from zoo.families.bert import BLOCK, FIXED, LAYER, OLD_NORMS, SIZES, embeddings
from zoo.families.roberta import DECODER, forms

FIRST = 2  # the row of the first position, whatever the padding's id is
ATTENTION = f"{LAYER}.attention"
BLOCKS = (
    *linear(f"{BLOCK}/attention/query", f"{ATTENTION}.attn.q"),
    *linear(f"{BLOCK}/attention/key", f"{ATTENTION}.attn.k"),
    *linear(f"{BLOCK}/attention/value", f"{ATTENTION}.attn.v"),
    *linear(f"{BLOCK}/attention/output", f"{ATTENTION}.attn.o"),
    *norm(f"{BLOCK}/attention_norm", f"{ATTENTION}.LayerNorm"),
    *linear(f"{BLOCK}/feed_forward/up", f"{LAYER}.intermediate.dense"),
    *linear(f"{BLOCK}/feed_forward/down", f"{LAYER}.output.dense"),
    *norm(f"{BLOCK}/feed_forward_norm", f"{LAYER}.output.LayerNorm"),
    row("encoder/relative_bias/buckets/table", "encoder.relative_attention_bias.weight"),
)

FAMILY = Family(
    model_type="mpnet",
    config=EncoderConfig,
    fixed={
        **FIXED,
        "position_bias": "relative",
        "relative_buckets": 32,
        "relative_max_distance": 128,
        "position_offset": FIRST,
        "head_activation": "gelu",
    },
    items=(
        *inherited(SIZES, without=("max_position_embeddings",), vocab_size=30527),
        Rule(
            lambda reader: {"max_length": reader.get("max_position_embeddings", 512) - FIRST},
            lambda config: {"max_position_embeddings": config.max_length + FIRST},
        ),
        Expect("relative_attention_num_buckets", (32,), "The reference computes with 32 always."),
        Fact("tie_embeddings", "tie_word_embeddings", True),
        special_tokens(pad=1, bos=0, eos=2),
    ),
    rows=(*embeddings(DECODER), *BLOCKS),
    forms=forms("MPNet"),
    prefix="mpnet",
    ignored=(r"\.position_ids$", r"^(mpnet\.)?pooler\."),
    renamed=OLD_NORMS,
    presets={
        "mpnet-base": Preset(
            {"max_position_embeddings": 514, "layer_norm_eps": 1e-5}, 109_518_527, "fill-mask"
        )
    },
    source="https://arxiv.org/abs/2004.09297",
)
