"""Nomic BERT (Nussbaum et al., 2024): BERT with rotary positions, gated SiLU and few biases; model
card nomic-ai/nomic-embed-text-v1.5.
"""

from typing import Any

from zoo.backbones.config import EncoderConfig
from zoo.checkpoints.facts import (
    ACTIVATIONS,
    WRITTEN_ACTIVATIONS,
    Expect,
    Fact,
    Reader,
    Rule,
    Unused,
    special_tokens,
)
from zoo.checkpoints.family import Family, Form, Preset
from zoo.checkpoints.rotary import rotary
from zoo.checkpoints.table import attention_sizes, fused, linear, norm, outside, qkv
from zoo.families.bert import (
    BLOCK,
    DECODER,
    FIXED,
    OLD_NORMS,
    POOLER,
    PREDICTIONS,
    embeddings,
    masked_head,
)

LAYER = "encoder.layers.{i}"
ROWS = (
    *(entry for entry in embeddings(DECODER) if "embeddings/norm" not in entry.ours[0]),
    *norm("encoder/embeddings/norm", "emb_ln"),
    *fused(qkv(BLOCK), f"{LAYER}.attn.Wqkv", attention_sizes),
    *linear(f"{BLOCK}/attention/output", f"{LAYER}.attn.out_proj"),
    *norm(f"{BLOCK}/attention_norm", f"{LAYER}.norm1"),
    *linear(f"{BLOCK}/feed_forward/up", f"{LAYER}.mlp.fc11"),
    *linear(f"{BLOCK}/feed_forward/gate", f"{LAYER}.mlp.fc12"),
    *linear(f"{BLOCK}/feed_forward/down", f"{LAYER}.mlp.fc2"),
    *norm(f"{BLOCK}/feed_forward_norm", f"{LAYER}.norm2"),
)


def _decode_activation(reader: Reader) -> dict[str, Any]:
    """Older files name gate and activation together."""
    older = {"swiglu": "silu", "geglu": "gelu", None: reader.get("hidden_act", "silu")}
    name = reader.get("activation_function", None)
    if older.get(name) not in ACTIVATIONS:
        which = "hidden_act" if name is None else "activation_function"
        raise reader.refuse(which, f"is not supported, expected {', '.join(ACTIVATIONS)}")
    return {"activation": ACTIVATIONS[older[name]]}


def _decode_older_rotary(reader: Reader) -> dict[str, Any]:
    base = reader.get("rotary_emb_base", None)
    return {} if base is None else {"rotary_base": float(base)}


OLDER = {
    **dict.fromkeys(
        (
            "qkv_proj_bias",
            "mlp_fc1_bias",
            "mlp_fc2_bias",
            "prenorm",
            "parallel_block",
            "parallel_block_tied_norm",
            "use_rms_norm",
            "causal",
            "rotary_emb_interleaved",
            "scale_attn_by_inverse_layer_idx",
        ),
        False,
    ),
    "rotary_emb_fraction": 1.0,
    "rotary_scaling_factor": None,
    "rotary_emb_scale_base": None,
    "scale_attn_weights": True,
    "tie_word_embeddings": True,
}

FAMILY = Family(
    model_type="nomic_bert",
    config=EncoderConfig,
    fixed={
        **FIXED,
        "positions": "rotary",
        "gated": True,
        "attention_bias": False,
        "projection_bias": False,
    },
    items=(
        Fact("vocab_size", "vocab_size", 30528),
        Fact("hidden_dim", "hidden_size", 768, also=("n_embd",)),
        Fact("num_layers", "num_hidden_layers", 12, also=("n_layer",)),
        Fact("num_heads", "num_attention_heads", 12, also=("n_head",)),
        Fact("head_dim", "head_dim", None),
        Fact("intermediate_dim", "intermediate_size", 3072, also=("n_inner",)),
        Fact("max_length", "max_position_embeddings", 2048, also=("n_positions",)),
        Fact("norm_epsilon", "layer_norm_eps", 1e-12, also=("layer_norm_epsilon",)),
        Rule(
            _decode_activation,
            lambda config: {"hidden_act": WRITTEN_ACTIVATIONS[config.activation]},
        ),
        Fact("dropout", "hidden_dropout_prob", 0.0, also=("resid_pdrop",)),
        Fact("attention_dropout", "attention_probs_dropout_prob", 0.0, also=("attn_pdrop",)),
        Fact("token_types", "type_vocab_size", 2),
        rotary(1000.0),
        Rule(_decode_older_rotary),
        *(Expect(name, (value,), written=False) for name, value in OLDER.items()),
        Unused(
            (
                "embd_pdrop",
                "dense_seq_output",
                "fused_bias_fc",
                "fused_dropout_add_ln",
                "last_layer_subset",
                "max_trained_positions",
                "pad_vocab_size_multiple",
                "reorder_and_upcast_attn",
                "use_flash_attn",
                "use_xentropy",
                "mlp_checkpoint_lvl",
            )
        ),
        special_tokens(pad=0),
    ),
    rows=ROWS,
    forms={
        "fill-mask": Form(
            ("NomicBertForMaskedLM", "NomicBertForPreTraining"),
            masked_head(
                f"{PREDICTIONS}.transform.dense",
                f"{PREDICTIONS}.transform.layer_norm",
                f"{PREDICTIONS}.bias",
                DECODER,
            ),
        ),
        "text-classification": Form(
            ("NomicBertForSequenceClassification",),
            (*POOLER, *outside(*linear("head/logits", "classifier"))),
            {"pooling": "cls", "hidden_activation": "tanh"},
        ),
        "token-classification": Form(
            ("NomicBertForTokenClassification",), outside(*linear("head/logits", "classifier"))
        ),
        "feature-extraction": Form(("NomicBertModel",), prefixed=False),
    },
    prefix="nomic_bert",
    ignored=(r"\.position_ids$", r"\.rotary_emb\."),
    renamed=(*OLD_NORMS, (r"\.transform\.LayerNorm\.", ".transform.layer_norm.")),
    presets={"nomic-embed-text-v1.5": Preset({}, 136_731_648, "feature-extraction")},
    source="https://arxiv.org/abs/2402.01613",
)
