"""GPT-NeoX and Pythia (Black et al., 2022; Biderman et al., 2023): attention and feed-forward in
parallel, partly rotary; model cards EleutherAI/gpt-neox-20b and EleutherAI/pythia-6.9b.
"""

from typing import Any

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import Fact, Reader, Rule, Unused, activation, special_tokens
from zoo.checkpoints.family import Family, Preset
from zoo.checkpoints.rotary import rotary
from zoo.checkpoints.table import HEADS_IN_TURN, linear, norm, qkv, row
from zoo.families import gpt2

BLOCK, LAYER = "decoder/block_{i}", "layers.{i}"
ROWS = (
    row("decoder/embeddings/tokens/table", "embed_in.weight", aliases=["embed_out.weight"]),
    *norm(f"{BLOCK}/attention_norm", f"{LAYER}.input_layernorm"),
    *norm(f"{BLOCK}/feed_forward_norm", f"{LAYER}.post_attention_layernorm"),
    row(
        [f"{name}/kernel" for name in qkv(BLOCK)],
        f"{LAYER}.attention.query_key_value.weight",
        HEADS_IN_TURN,
    ),
    row(
        [f"{name}/bias" for name in qkv(BLOCK)],
        f"{LAYER}.attention.query_key_value.bias",
        HEADS_IN_TURN,
    ),
    *linear(f"{BLOCK}/attention/output", f"{LAYER}.attention.dense"),
    *linear(f"{BLOCK}/feed_forward/up", f"{LAYER}.mlp.dense_h_to_4h"),
    *linear(f"{BLOCK}/feed_forward/down", f"{LAYER}.mlp.dense_4h_to_h"),
    *norm("decoder/final_norm", "final_layer_norm"),
)


def _decode_biases(reader: Reader) -> dict[str, Any]:
    on = reader.get("attention_bias", True)
    return {"attention_bias": on, "attention_output_bias": on}


def _size(hidden: int, layers: int, heads: int, **others: Any) -> dict[str, Any]:
    return {
        "vocab_size": 50304,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
        "bos_token_id": 0,
        "eos_token_id": 0,
        **others,
    }


FAMILY = Family(
    model_type="gpt_neox",
    config=DecoderConfig,
    fixed={"positions": "rotary"},
    items=(
        Fact("vocab_size", "vocab_size", 50432),
        Fact("hidden_dim", "hidden_size", 6144),
        Fact("num_layers", "num_hidden_layers", 44),
        Fact("num_heads", "num_attention_heads", 64),
        Fact("intermediate_dim", "intermediate_size", 24576),
        Fact("max_length", "max_position_embeddings", 2048),
        Fact("norm_epsilon", "layer_norm_eps", 1e-5),
        Fact("dropout", "hidden_dropout", 0.0, also=("hidden_dropout_prob",)),
        Fact("attention_dropout", "attention_dropout", 0.0, also=("attention_probs_dropout_prob",)),
        activation("hidden_act", "gelu"),
        Fact("parallel_residual", "use_parallel_residual", True),
        Fact("tie_embeddings", "tie_word_embeddings", False),
        Rule(_decode_biases, lambda config: {"attention_bias": config.attention_bias}),
        rotary(fraction=0.25, theta_key="rotary_emb_base", fraction_key="rotary_pct"),
        Unused(("rope_theta", "partial_rotary_factor", "is_decoder")),
        special_tokens(bos=0, eos=2),
    ),
    rows=ROWS,
    forms=gpt2.forms("GPTNeoX", head="embed_out"),
    prefix="gpt_neox",
    ignored=(r"\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)$",),
    renamed=((r"^lm_head\.", "embed_out."),),
    presets={
        "gpt-neox-20b": Preset(
            _size(6144, 44, 64, vocab_size=50432, hidden_act="gelu_fast"),
            20_554_567_680,
            "text-generation",
        ),
        **{
            f"pythia-{name}": Preset(size, count, "text-generation")
            for name, size, count in (
                ("70m", _size(512, 6, 8), 70_426_624),
                ("160m", _size(768, 12, 12), 162_322_944),
                ("410m", _size(1024, 24, 16), 405_334_016),
                ("1b", _size(2048, 16, 8), 1_011_781_632),
                ("1.4b", _size(2048, 24, 16), 1_414_647_808),
                ("2.8b", _size(2560, 32, 32), 2_775_208_960),
                ("6.9b", _size(4096, 32, 32, vocab_size=50432), 6_857_302_016),
                ("12b", _size(5120, 36, 40, vocab_size=50688), 11_846_072_320),
            )
        },
    },
    source="https://arxiv.org/abs/2204.06745",
)
