"""OPT (Zhang et al., 2022): GPT-3's form with ReLU, learned positions from row 2 on; the 350M model
has post-norm and an embedding narrower than its states; model card facebook/opt-125m.
"""

from typing import Any

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import Fact, Reader, Rule, Unused, activation, special_tokens
from zoo.checkpoints.family import Family, Preset
from zoo.checkpoints.table import TRANSPOSED, linear, norm, row
from zoo.families import gpt2

BLOCK, LAYER = "decoder/block_{i}", "decoder.layers.{i}"
ROWS = (
    row(
        "decoder/embeddings/tokens/table",
        "decoder.embed_tokens.weight",
        aliases=["lm_head.weight"],
    ),
    row("decoder/embeddings/positions/table", "decoder.embed_positions.weight"),
    row("decoder/embeddings/projection/kernel", "decoder.project_in.weight", TRANSPOSED),
    *norm(f"{BLOCK}/attention_norm", f"{LAYER}.self_attn_layer_norm"),
    *linear(f"{BLOCK}/attention/query", f"{LAYER}.self_attn.q_proj"),
    *linear(f"{BLOCK}/attention/key", f"{LAYER}.self_attn.k_proj"),
    *linear(f"{BLOCK}/attention/value", f"{LAYER}.self_attn.v_proj"),
    *linear(f"{BLOCK}/attention/output", f"{LAYER}.self_attn.out_proj"),
    *norm(f"{BLOCK}/feed_forward_norm", f"{LAYER}.final_layer_norm"),
    *linear(f"{BLOCK}/feed_forward/up", f"{LAYER}.fc1"),
    *linear(f"{BLOCK}/feed_forward/down", f"{LAYER}.fc2"),
    *norm("decoder/final_norm", "decoder.final_layer_norm"),
    row("decoder/output_projection/kernel", "decoder.project_out.weight", TRANSPOSED),
)


def _decode_norms(reader: Reader) -> dict[str, Any]:
    before = reader.get("do_layer_norm_before", True)
    removed = reader.get("_remove_final_layer_norm", False)
    affine = reader.get("layer_norm_elementwise_affine", True)
    return {
        "norm_position": "pre" if before else "post",
        "final_norm": before and not removed,
        "norm_scale": affine,
        "norm_bias": affine,
    }


def _encode_norms(config: Any) -> dict[str, Any]:
    before = config.norm_position == "pre"
    return {
        "do_layer_norm_before": before,
        "_remove_final_layer_norm": before and not config.final_norm,
        "layer_norm_elementwise_affine": config.norm_scale,
    }


def _decode_widths(reader: Reader) -> dict[str, Any]:
    width = reader.get("word_embed_proj_dim", None)
    return {"embedding_dim": width, "output_dim": width}


def _decode_biases(reader: Reader) -> dict[str, Any]:
    on = reader.get("enable_bias", True)
    return {"attention_bias": on, "projection_bias": on}


def _size(hidden: int, layers: int, heads: int, **others: Any) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "ffn_dim": 4 * hidden,
        **others,
    }


SIZES = (
    ("125m", _size(768, 12, 12), 125_239_296),
    (
        "350m",
        _size(1024, 24, 16, word_embed_proj_dim=512, do_layer_norm_before=False),
        331_196_416,
    ),
    ("1.3b", _size(2048, 24, 32), 1_315_758_080),
    ("2.7b", _size(2560, 32, 32), 2_651_596_800),
    ("6.7b", _size(4096, 32, 32), 6_658_473_984),
    ("13b", _size(5120, 40, 40), 12_853_473_280),
    ("30b", _size(7168, 48, 56), 29_974_540_288),
    ("66b", _size(9216, 64, 72), 65_719_701_504),
    ("175b", _size(12288, 96, 96), 174_604_468_224),
)

FAMILY = Family(
    model_type="opt",
    config=DecoderConfig,
    fixed={
        "position_offset": 2,
        "norm_epsilon": 1e-5,
        "embedding_projection_first": True,
        "embedding_projection_bias": False,
    },
    items=(
        Fact("vocab_size", "vocab_size", 50272),
        Fact("hidden_dim", "hidden_size", 768),
        Fact("num_layers", "num_hidden_layers", 12),
        Fact("num_heads", "num_attention_heads", 12),
        Fact("intermediate_dim", "ffn_dim", 3072),
        Fact("max_length", "max_position_embeddings", 2048),
        Fact("dropout", "dropout", 0.1),
        Fact("attention_dropout", "attention_dropout", 0.0),
        activation("activation_function", "relu"),
        Fact("tie_embeddings", "tie_word_embeddings", True),
        Rule(_decode_norms, _encode_norms),
        Rule(_decode_widths, lambda config: {"word_embed_proj_dim": config.embedding_dim}),
        Rule(_decode_biases, lambda config: {"enable_bias": config.attention_bias}),
        Unused(("activation_dropout", "layerdrop")),
        special_tokens(pad=1, bos=2, eos=2),
    ),
    rows=ROWS,
    forms=gpt2.forms("OPT", without=("token-classification",)),
    prefix="model",
    ignored=(r"^model\.decoder\.version$",),
    renamed=((r"^(model\.)?decoder\.layer_norm\.", r"\1decoder.final_layer_norm."),),
    presets={f"opt-{name}": Preset(size, count, "text-generation") for name, size, count in SIZES},
    source="https://arxiv.org/abs/2205.01068",
)
