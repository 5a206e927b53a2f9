"""Llama 1, 2, 3 (Touvron et al., 2023; Grattafiori et al., 2024): rotary, RMS norm, gated SiLU."""

from collections.abc import Sequence
from typing import Any

from zoo.backbones.config import DecoderConfig
from zoo.checkpoints.facts import Fact, Reader, Rule, activation, special_tokens
from zoo.checkpoints.family import Family, Form, Preset
from zoo.checkpoints.rotary import rotary
from zoo.checkpoints.table import TRANSPOSED, linear, norm, outside, row

SIZES = (
    Fact("vocab_size", "vocab_size", 32000),
    Fact("hidden_dim", "hidden_size", 4096),
    Fact("num_layers", "num_hidden_layers", 32),
    Fact("num_heads", "num_attention_heads", 32),
    Fact("num_kv_heads", "num_key_value_heads", None),
    Fact("head_dim", "head_dim", None),
    Fact("intermediate_dim", "intermediate_size", 11008),
    Fact("max_length", "max_position_embeddings", 2048),
    activation("hidden_act", "silu"),
    Fact("norm_epsilon", "rms_norm_eps", 1e-6),
    Fact("attention_dropout", "attention_dropout", 0.0),
    Fact("tie_embeddings", "tie_word_embeddings", False),
)
FIXED = {"norm": "rms", "positions": "rotary", "gated": True, "dropout": 0.0}

BLOCK, LAYER = "decoder/block_{i}", "layers.{i}"
ATTENTION = (
    *linear(f"{BLOCK}/attention/query", f"{LAYER}.self_attn.q_proj"),
    *linear(f"{BLOCK}/attention/key", f"{LAYER}.self_attn.k_proj"),
    *linear(f"{BLOCK}/attention/value", f"{LAYER}.self_attn.v_proj"),
    *linear(f"{BLOCK}/attention/output", f"{LAYER}.self_attn.o_proj"),
)
FEED_FORWARD = (
    *linear(f"{BLOCK}/feed_forward/gate", f"{LAYER}.mlp.gate_proj"),
    *linear(f"{BLOCK}/feed_forward/up", f"{LAYER}.mlp.up_proj"),
    *linear(f"{BLOCK}/feed_forward/down", f"{LAYER}.mlp.down_proj"),
)
NORMS = (
    *norm(f"{BLOCK}/attention_norm", f"{LAYER}.input_layernorm"),
    *norm(f"{BLOCK}/feed_forward_norm", f"{LAYER}.post_attention_layernorm"),
)
ENDS = (
    row("decoder/embeddings/tokens/table", "embed_tokens.weight", aliases=["lm_head.weight"]),
    *norm("decoder/final_norm", "norm"),
)
ROWS = (*ENDS, *NORMS, *ATTENTION, *FEED_FORWARD)


def forms(
    name: str, without: Sequence[str] = (), question_prefix: str | None = None
) -> dict[str, Form]:
    """The tasks of a decoder named in the manner of Llama.

    Args:
        name: What the reference's classes begin with.
        without: Tasks for which it has no class.
        question_prefix: The base model's prefix in question answering, where it is another.
    """
    head = row("head/output/kernel", "lm_head.weight", TRANSPOSED)
    bias = row("head/bias", "lm_head.bias")
    score = outside(*linear("head/logits", "score"))
    found = {
        "text-generation": Form((f"{name}ForCausalLM",), outside(head, bias)),
        "text-classification": Form(
            (f"{name}ForSequenceClassification",), score, {"pooling": "last", "logits_bias": False}
        ),
        "token-classification": Form((f"{name}ForTokenClassification",), score),
        "question-answering": Form(
            (f"{name}ForQuestionAnswering",),
            outside(*linear("head/logits", "qa_outputs")),
            prefix=question_prefix,
        ),
        "feature-extraction": Form((f"{name}Model",), prefixed=False),
    }
    return {task: form for task, form in found.items() if task not in without}


def _decode_biases(reader: Reader) -> dict[str, Any]:
    attention = reader.get("attention_bias", False)
    return {
        "attention_bias": attention,
        "attention_output_bias": attention,
        "projection_bias": reader.get("mlp_bias", False),
    }


BIASES = Rule(
    _decode_biases,
    lambda config: {"attention_bias": config.attention_bias, "mlp_bias": config.projection_bias},
)


def attention_biases(default: bool = False) -> Rule:
    """One key says whether all four projections of attention have a bias; nothing else has one."""

    def decode(reader: Reader) -> dict[str, Any]:
        bias = reader.get("attention_bias", default)
        return {"attention_bias": bias, "attention_output_bias": bias, "projection_bias": False}

    return Rule(decode, lambda config: {"attention_bias": config.attention_bias})


LLAMA_3_2 = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
}

FAMILY = Family(
    model_type="llama",
    config=DecoderConfig,
    fixed=FIXED,
    items=(*SIZES, BIASES, rotary(), special_tokens(bos=1, eos=2)),
    rows=ROWS,
    forms=forms("Llama", question_prefix="transformer"),
    prefix="model",
    ignored=(r"\.rotary_emb\.inv_freq$",),
    presets={
        "llama-2-7b": Preset(
            {"max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
            6_738_415_616,
            "text-generation",
        ),
        "llama-3-8b": Preset(
            {
                "vocab_size": 128256,
                "intermediate_size": 14336,
                "num_key_value_heads": 8,
                "max_position_embeddings": 8192,
                "rope_theta": 500000.0,
                "rms_norm_eps": 1e-5,
                "bos_token_id": 128000,
                "eos_token_id": 128001,
            },
            8_030_261_248,
            "text-generation",
        ),
        "llama-3.2-1b": Preset(LLAMA_3_2, 1_235_814_400, "text-generation"),
    },
    source="https://arxiv.org/abs/2302.13971",
)
