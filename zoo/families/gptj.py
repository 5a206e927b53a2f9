"""GPT-J (Wang and Komatsuzaki, 2021): attention and feed-forward in parallel behind one norm,
rotary positions in neighbouring pairs; model card EleutherAI/gpt-j-6b.
"""

from typing import Any

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import (
    Expect,
    Fact,
    Reader,
    Rule,
    activation,
    inherited,
    special_tokens,
)
from zoo.checkpoints.family import Family, Preset
from zoo.checkpoints.table import linear, norm, row
from zoo.families import gpt2

BLOCK, LAYER = "decoder/block_{i}", "h.{i}"
ROWS = (
    row("decoder/embeddings/tokens/table", "wte.weight", aliases=["lm_head.weight"]),
    *norm(f"{BLOCK}/attention_norm", f"{LAYER}.ln_1"),
    *linear(f"{BLOCK}/attention/query", f"{LAYER}.attn.q_proj"),
    *linear(f"{BLOCK}/attention/key", f"{LAYER}.attn.k_proj"),
    *linear(f"{BLOCK}/attention/value", f"{LAYER}.attn.v_proj"),
    *linear(f"{BLOCK}/attention/output", f"{LAYER}.attn.out_proj"),
    *linear(f"{BLOCK}/feed_forward/up", f"{LAYER}.mlp.fc_in"),
    *linear(f"{BLOCK}/feed_forward/down", f"{LAYER}.mlp.fc_out"),
    *norm("decoder/final_norm", "ln_f"),
)


def _decode_turned(reader: Reader) -> dict[str, Any]:
    turned = reader.get("rotary_dim", 64)
    if turned is None:
        raise reader.refuse("rotary_dim", "is not supported, expected a number of features")
    width = reader.get("n_embd", 4096) // reader.get("n_head", 16)
    return {"rotary_fraction": turned / width}


FAMILY = Family(
    model_type="gptj",
    config=DecoderConfig,
    fixed={
        "positions": "rotary",
        "rotary_interleaved": True,
        "parallel_residual": True,
        "shared_norm": True,
        "attention_bias": False,
        "attention_output_bias": False,
        "logit_bias": True,
    },
    items=(
        *inherited(
            gpt2.SIZES,
            vocab_size=50400,
            n_embd=4096,
            n_layer=28,
            n_head=16,
            n_positions=2048,
            resid_pdrop=0.0,
            attn_pdrop=0.0,
        ),
        Rule(_decode_turned, lambda config: {"rotary_dim": config.rotary_dim}),
        Fact("intermediate_dim", "n_inner", None),
        activation("activation_function", "gelu_new"),
        Fact("tie_embeddings", "tie_word_embeddings", False),
        Expect("rotary", (True,), written=False),
        Expect("scale_attn_weights", (True,), written=False),
        special_tokens(bos=50256, eos=50256),
    ),
    rows=ROWS,
    forms=gpt2.forms("GPTJ", without=("token-classification",)),
    prefix="transformer",
    ignored=(r"\.attn\.(bias|masked_bias|embed_positions)$",),
    presets={"gpt-j-6b": Preset({}, 6_050_882_784, "text-generation")},
    source="https://github.com/kingoflolz/mesh-transformer-jax",
)
