"""Decoder families: `config.json` as published folders have it, and what is refused in it."""

from typing import Any

import pytest

from zoo.errors import ConfigError
from zoo.families import family

COMMON = {
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.46.0",
    "use_cache": True,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
QWEN = {
    **COMMON,
    "vocab_size": 151936,
    "rope_theta": 1000000.0,
    "rope_scaling": None,
    "use_sliding_window": False,
    "tie_word_embeddings": False,
}
GEMMA = {
    **COMMON,
    "attention_bias": False,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "cache_implementation": "hybrid",
    "pad_token_id": 0,
    "rope_theta": 10000.0,
    "num_key_value_heads": 4,
    "vocab_size": 256000,
}
FACTORS = [1.0 + i / 10 for i in range(48)]

PUBLISHED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "mistral without its newer keys": (
        "mistral",
        {**COMMON, "hidden_size": 4096, "num_hidden_layers": 32, "rope_theta": 10000.0},
        {"window": 4096, "num_kv_heads": 8, "head_dim": 128, "intermediate_dim": 14336},
    ),
    "mixtral": (
        "mixtral",
        {
            **COMMON,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "output_router_logits": False,
            "router_aux_loss_coef": 0.02,
            "sliding_window": None,
            "rope_theta": 1e6,
        },
        {"num_experts": 8, "expert_dim": 14336, "window": None, "rotary_base": 1e6},
    ),
    "qwen2.5": (
        "qwen2",
        {
            **QWEN,
            "hidden_size": 896,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "intermediate_size": 4864,
            "max_window_layers": 24,
            "sliding_window": 32768,
            "use_mrope": False,
        },
        {"window": None, "attention_bias": True, "attention_output_bias": False, "head_dim": 64},
    ),
    "qwen2 with windows from a layer on": (
        "qwen2",
        {
            **QWEN,
            "num_hidden_layers": 4,
            "use_sliding_window": True,
            "sliding_window": 99,
            "max_window_layers": 3,
        },
        {"window": 99, "global_layers": (0, 1, 2)},
    ),
    "qwen3 with experts": (
        "qwen3_moe",
        {
            **QWEN,
            "attention_bias": False,
            "decoder_sparse_step": 1,
            "head_dim": 128,
            "hidden_size": 2048,
            "max_window_layers": 48,
            "mlp_only_layers": [],
            "moe_intermediate_size": 768,
            "norm_topk_prob": True,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 48,
            "sliding_window": None,
        },
        {"num_experts": 128, "dense_layers": (), "expert_weights": "softmax_all_normalized"},
    ),
    "gemma, which says gelu and means its approximation": (
        "gemma",
        {**GEMMA, "hidden_act": "gelu", "hidden_activation": None, "hidden_size": 2048},
        {"activation": "gelu_tanh", "embedding_scale": 2048**0.5, "head_dim": 256},
    ),
    "gemma 2": (
        "gemma2",
        {
            **GEMMA,
            "num_hidden_layers": 4,
            "sliding_window": 4096,
            "sliding_window_size": 4096,
            "query_pre_attn_scalar": 224,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
        {"global_layers": (1, 3), "attention_scale": 224**-0.5, "logit_softcap": 30.0},
    ),
    "gemma 3": (
        "gemma3_text",
        {
            **GEMMA,
            "num_hidden_layers": 7,
            "sliding_window": 512,
            "sliding_window_pattern": 6,
            "query_pre_attn_scalar": 256,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "rope_local_base_freq": 10000,
            "rope_scaling": None,
            "rope_theta": 1000000,
        },
        {"global_layers": (5,), "rotary_base": 1e6, "local_rotary_base": 1e4},
    ),
    "phi 3 with the first name of its scaling": (
        "phi3",
        {
            **COMMON,
            "attention_bias": False,
            "embd_pdrop": 0.0,
            "resid_pdrop": 0.0,
            "hidden_size": 3072,
            "max_position_embeddings": 131072,
            "original_max_position_embeddings": 4096,
            "rope_scaling": {"type": "su", "short_factor": FACTORS, "long_factor": FACTORS},
            "rope_theta": 10000.0,
            "sliding_window": 262144,
        },
        {"window": 262144, "rotary_fraction": 1.0},
    ),
    "phi 4 mini": (
        "phi3",
        {
            **COMMON,
            "hidden_size": 3072,
            "num_attention_heads": 24,
            "num_key_value_heads": 8,
            "partial_rotary_factor": 0.75,
            "max_position_embeddings": 131072,
            "original_max_position_embeddings": 4096,
            "rope_scaling": {"type": "longrope", "short_factor": FACTORS, "long_factor": FACTORS},
            "tie_word_embeddings": True,
        },
        {"rotary_fraction": 0.75, "tie_embeddings": True, "num_kv_heads": 8},
    ),
    "smollm3": (
        "smollm3",
        {
            **COMMON,
            "attention_bias": False,
            "layer_types": ["full_attention"] * 8,
            "max_window_layers": 28,
            "mlp_bias": False,
            "no_rope_layer_interval": 4,
            "no_rope_layers": [1, 1, 1, 0] * 2,
            "num_hidden_layers": 8,
            "pretraining_tp": 2,
            "rope_scaling": None,
            "rope_theta": 5000000.0,
            "sliding_window": None,
            "use_sliding_window": False,
        },
        {"unturned_layers": (3, 7), "window": None, "tie_embeddings": True},
    ),
    "olmo 2": (
        "olmo2",
        {**COMMON, "attention_bias": False, "rope_theta": 500000, "rope_scaling": None},
        {"norm_position": "output", "qk_norm_scope": "all", "attention_output_bias": False},
    ),
    "gpt-oss": (
        "gpt_oss",
        {
            **COMMON,
            "attention_bias": True,
            "experts_per_token": 4,
            "head_dim": 64,
            "initial_context_length": 4096,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "num_experts_per_tok": 4,
            "num_hidden_layers": 4,
            "num_local_experts": 32,
            "rope_scaling": {
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "factor": 32.0,
                "original_max_position_embeddings": 4096,
                "rope_type": "yarn",
                "truncate": False,
            },
            "rope_theta": 150000,
            "sliding_window": 128,
            "swiglu_limit": 7.0,
        },
        {"num_experts": 32, "window": 128, "global_layers": (1, 3), "gate_limit": 7.0},
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_are_understood_and_written_back(name) -> None:
    model_type, values, facts = PUBLISHED[name]
    found = family(model_type)
    config = found.decode({"model_type": model_type, **values})
    assert {fact: getattr(config, fact) for fact in facts} == facts
    assert found.decode(found.encode(config)) == config


def test_an_absent_scaling_is_the_default_and_one_turned_off_stays_off() -> None:
    found, values = family("gpt_oss"), {"num_hidden_layers": 2, "eos_token_id": 2}
    config = found.decode(values)
    assert (config.rotary_scaling.kind, config.rotary_scaling.factor) == ("yarn", 32.0)
    plain = found.decode({**values, "rope_parameters": {"rope_type": "default"}})
    assert plain.rotary_scaling is None
    assert found.decode(found.encode(plain)) == plain


def test_layers_at_equal_distances_are_written_as_a_step() -> None:
    found = family("qwen3_moe")
    values = {"num_hidden_layers": 6, "eos_token_id": 2}
    for given, expected in (
        ({"decoder_sparse_step": 3}, (3, [])),
        ({"mlp_only_layers": [0, 1, 3, 4]}, (3, [])),
        ({"mlp_only_layers": [0]}, (1, [0])),
        ({}, (1, [])),
    ):
        config = found.decode({**values, **given})
        written = found.encode(config)
        assert (written["decoder_sparse_step"], written["mlp_only_layers"]) == expected
        assert found.decode(written) == config


QUANTIZED = {"quant_method": "mxfp4"}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("gpt_oss", {"quantization_config": QUANTIZED}, "quantization_config.*mxfp4.*dequantize"),
    ("gpt_oss", {"swiglu_alpha": 1.5}, r"swiglu_alpha = 1.5.*expected 1.702"),
    ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention = True"),
    ("gemma2", {"layer_types": ["chunked_attention"] * 4}, "layer_types.*expected 4 of"),
    ("gemma3_text", {"layer_types": ["full_attention"]}, "layer_types.*expected 4 of"),
    ("gemma3_text", {"rope_parameters": {"rope_type": "default"}}, "rope_parameters"),
    ("mistral", {"layer_types": ["full_attention"] * 4}, "layer_types.*not understood"),
    ("qwen3", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
    ("phi3", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "expected longrope"),
    ("smollm3", {"no_rope_layers": [1, 0]}, "no_rope_layers.*too short for 4 layers"),
    ("qwen2", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "new": 1}}, "new"),
]


@pytest.mark.parametrize(("model_type", "given", "message"), REFUSED)
def test_what_would_change_the_numbers_is_refused(model_type, given, message) -> None:
    with pytest.raises(ConfigError, match=message):
        family(model_type).decode({"num_hidden_layers": 4, "eos_token_id": 2, **given})
