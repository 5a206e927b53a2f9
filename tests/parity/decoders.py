"""Cases of the decoders."""

from typing import Any

from .cases import LABELS, Case, Family

CLASSES = {"id2label": LABELS, "label2id": {name: i for i, name in LABELS.items()}}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

GPT: dict[str, Any] = {
    "vocab_size": 99,
    "n_positions": 40,
    "n_embd": 36,
    "n_layer": 2,
    "n_head": 3,
    **SPECIAL,
}
LLAMA: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 36,
    "intermediate_size": 53,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "head_dim": 6,
    **SPECIAL,
}
LONG = (1, 9, 24)
"""Rows longer than the windows and the scaled rotary tables' first lengths."""


def rope(kind: str, theta: float = 10_000.0, **facts: Any) -> dict[str, Any]:
    """The config's entry for a rotary variant, as the reference writes it today."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": theta, **facts}}


def without(config: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in names}


def llama_like(prefix: str, **cases: Case) -> dict[str, Case]:
    """Grouped, ungrouped, one key head, tied and untied."""
    architecture = f"{prefix}ForCausalLM"
    return {
        "grouped": Case(architecture, {"tie_word_embeddings": False}, golden=True),
        "ungrouped": Case(architecture, {"num_key_value_heads": 6, "tie_word_embeddings": False}),
        "one-key-head": Case(architecture, {"num_key_value_heads": 1}),
        "tied": Case(architecture, {"tie_word_embeddings": True}),
        "other-theta": Case(architecture, rope("default", 500.0), lengths=LONG),
        **{name.replace("_", "-"): case for name, case in cases.items()},
    }


LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"factor": 4.0, "original_max_position_embeddings": 16}

DECODERS: dict[str, Family] = {
    "openai-gpt": Family(
        "h",
        GPT,
        {
            "plain": Case("OpenAIGPTLMHeadModel", {}, golden=True),
            "untied": Case("OpenAIGPTLMHeadModel", {"tie_word_embeddings": False}),
            "relu": Case("OpenAIGPTLMHeadModel", {"afn": "relu"}),
            "bare-names": Case("OpenAIGPTLMHeadModel", {}, prefixed=False),
        },
    ),
    "gpt2": Family(
        "h",
        GPT,
        {
            "plain": Case("GPT2LMHeadModel", {}, golden=True),
            "untied-inner": Case("GPT2LMHeadModel", {"tie_word_embeddings": False, "n_inner": 53}),
            "scaled-by-layer-upcast": Case(
                "GPT2LMHeadModel",
                {
                    "scale_attn_by_inverse_layer_idx": True,
                    "reorder_and_upcast_attn": True,
                    "n_layer": 3,
                },
                required=False,
            ),
            "unscaled": Case("GPT2LMHeadModel", {"scale_attn_weights": False}),
            "relu": Case("GPT2LMHeadModel", {"activation_function": "relu"}),
            "gelu": Case("GPT2LMHeadModel", {"activation_function": "gelu"}),
            "bare-names-and-masks": Case(
                "GPT2LMHeadModel",
                {},
                prefixed=False,
                extra={"h.0.attn.bias": (1, 1, 40, 40), "h.1.attn.bias": (1, 1, 40, 40)},
            ),
            "sharded": Case("GPT2LMHeadModel", {}, shard_bytes=30_000),
            "bfloat16": Case("GPT2LMHeadModel", {}, dtype="bfloat16", greedy=False),
            "sequence-classification": Case(
                "GPT2ForSequenceClassification", CLASSES, required=False
            ),
            "token-classification": Case("GPT2ForTokenClassification", CLASSES, required=False),
        },
    ),
    "gpt_neo": Family(
        "h",
        {
            "vocab_size": 99,
            "max_position_embeddings": 40,
            "hidden_size": 36,
            "num_layers": 4,
            "num_heads": 3,
            "window_size": 5,
            "attention_types": [[["global", "local"], 2]],
            **SPECIAL,
        },
        {
            "alternating": Case("GPTNeoForCausalLM", {}, golden=True, lengths=(1, 4, 13)),
            "untied-inner": Case(
                "GPTNeoForCausalLM", {"tie_word_embeddings": False, "intermediate_size": 53}
            ),
            "all-global": Case("GPTNeoForCausalLM", {"attention_types": [[["global"], 4]]}),
            "all-local": Case("GPTNeoForCausalLM", {"attention_types": [[["local"], 4]]}),
        },
    ),
    "gpt_neox": Family(
        "layers",
        {
            **without(LLAMA, "num_key_value_heads", "head_dim"),
            "num_attention_heads": 3,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "partial_rotary_factor": 0.34,
            },
        },
        {
            "plain": Case("GPTNeoXForCausalLM", {}, golden=True),
            "sequential": Case("GPTNeoXForCausalLM", {"use_parallel_residual": False}),
            "tied": Case("GPTNeoXForCausalLM", {"tie_word_embeddings": True}),
            "no-attention-bias": Case("GPTNeoXForCausalLM", {"attention_bias": False}),
            "older-config": Case(
                "GPTNeoXForCausalLM",
                {"rotary_pct": 0.5, "rotary_emb_base": 500, "rope_parameters": None},
                raw_config=True,
            ),
            "gelu-tanh": Case("GPTNeoXForCausalLM", {"hidden_act": "gelu_new"}),
        },
    ),
    "gptj": Family(
        "h",
        {**GPT, "rotary_dim": 4},
        {
            "plain": Case("GPTJForCausalLM", {}, golden=True),
            "whole-head-inner": Case("GPTJForCausalLM", {"rotary_dim": 12, "n_inner": 53}),
            "tied": Case("GPTJForCausalLM", {"tie_word_embeddings": True}),
        },
    ),
    "opt": Family(
        "decoder.layers",
        {
            "vocab_size": 99,
            "hidden_size": 36,
            "num_hidden_layers": 2,
            "ffn_dim": 53,
            "max_position_embeddings": 40,
            "num_attention_heads": 3,
            "pad_token_id": 1,
            "bos_token_id": 2,
            "eos_token_id": 2,
            "word_embed_proj_dim": 36,
        },
        {
            "plain": Case("OPTForCausalLM", {}, golden=True),
            "projected-postnorm": Case(
                "OPTForCausalLM",
                {"word_embed_proj_dim": 20, "do_layer_norm_before": False},
                golden=True,
                lengths=(2, 6),
            ),
            "projected": Case("OPTForCausalLM", {"word_embed_proj_dim": 20}),
            "no-bias": Case(
                "OPTForCausalLM", {"enable_bias": False, "layer_norm_elementwise_affine": False}
            ),
            "gelu": Case("OPTForCausalLM", {"activation_function": "gelu"}),
            "untied": Case("OPTForCausalLM", {"tie_word_embeddings": False}),
            "no-final-norm": Case("OPTForCausalLM", {"_remove_final_layer_norm": True}),
        },
    ),
    "bloom": Family(
        "h",
        {"vocab_size": 99, "hidden_size": 36, "n_layer": 2, "n_head": 3, **SPECIAL},
        {
            "plain": Case("BloomForCausalLM", {}, golden=True),
            "even-heads": Case("BloomForCausalLM", {"n_head": 4}),
            "six-heads": Case("BloomForCausalLM", {"n_head": 6}),
            "residual-behind-norm": Case(
                "BloomForCausalLM",
                {"apply_residual_connection_post_layernorm": True},
                required=False,
            ),
            "bare-names": Case("BloomForCausalLM", {}, prefixed=False),
        },
    ),
    "falcon": Family(
        "h",
        {
            "vocab_size": 99,
            "hidden_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 6,
            "max_position_embeddings": 40,
            **SPECIAL,
        },
        {
            "7b": Case("FalconForCausalLM", {}, golden=True),
            "new-decoder": Case(
                "FalconForCausalLM",
                {"new_decoder_architecture": True, "num_kv_heads": 2},
                golden=True,
                lengths=(2, 6),
            ),
            "new-decoder-one-norm": Case(
                "FalconForCausalLM",
                {"new_decoder_architecture": True, "num_kv_heads": 3, "num_ln_in_parallel_attn": 1},
            ),
            "refined-web-alibi": Case(
                "FalconForCausalLM",
                {"alibi": True, "parallel_attn": False, "multi_query": False, "bias": True},
            ),
            "sequential-rotary": Case(
                "FalconForCausalLM", {"parallel_attn": False, "multi_query": False}
            ),
            "inner-untied": Case(
                "FalconForCausalLM", {"ffn_hidden_size": 53, "tie_word_embeddings": False}
            ),
        },
    ),
    "llama": Family(
        "layers",
        LLAMA,
        llama_like(
            "Llama",
            biases=Case("LlamaForCausalLM", {"attention_bias": True, "mlp_bias": True}),
            wide_heads=Case("LlamaForCausalLM", {"head_dim": 16, "num_attention_heads": 4}),
            rope_linear=Case("LlamaForCausalLM", rope("linear", factor=3.0), lengths=LONG),
            rope_dynamic_within=Case(
                "LlamaForCausalLM",
                rope("dynamic", factor=2.0),
            ),
            rope_dynamic_beyond=Case(
                "LlamaForCausalLM",
                {
                    **rope("dynamic", factor=2.0),
                    "max_position_embeddings": 16,
                },
                lengths=(3, 24),
                cached=False,
                greedy=False,
            ),
            rope_llama3=Case(
                "LlamaForCausalLM", rope("llama3", **LLAMA3), lengths=LONG, golden=True
            ),
            rope_yarn=Case("LlamaForCausalLM", rope("yarn", **YARN), lengths=LONG),
            rope_yarn_facts=Case(
                "LlamaForCausalLM",
                rope("yarn", **YARN, beta_fast=16.0, beta_slow=2.0, attention_factor=1.3),
                lengths=LONG,
            ),
            rope_yarn_mscale=Case(
                "LlamaForCausalLM",
                rope("yarn", **YARN, mscale=1.2, mscale_all_dim=0.7),
                lengths=LONG,
                required=False,
            ),
            older_config=Case(
                "LlamaForCausalLM",
                {
                    "rope_theta": 500.0,
                    "rope_scaling": {"type": "linear", "factor": 2.0},
                    "tie_word_embeddings": False,
                    "torch_dtype": "float32",
                    "pretraining_tp": 1,
                    "rope_interleaved": False,
                },
                raw_config=True,
                lengths=LONG,
            ),
            older_config_llama3=Case(
                "LlamaForCausalLM",
                {
                    "rope_theta": 500_000.0,
                    "rope_scaling": {"rope_type": "llama3", **LLAMA3},
                    "attention_dropout": 0.0,
                    "initializer_range": 0.02,
                    "use_cache": True,
                },
                raw_config=True,
                lengths=LONG,
            ),
            rotary_buffers_in_file=Case(
                "LlamaForCausalLM",
                {},
                extra={"model.layers.0.self_attn.rotary_emb.inv_freq": (3,)},
            ),
            sharded=Case("LlamaForCausalLM", {}, shard_bytes=30_000),
            bfloat16=Case("LlamaForCausalLM", {}, dtype="bfloat16", greedy=False),
            float16=Case("LlamaForCausalLM", {}, dtype="float16", greedy=False),
            sequence_classification=Case("LlamaForSequenceClassification", CLASSES, required=False),
        ),
    ),
    "mistral": Family(
        "layers",
        LLAMA,
        llama_like(
            "Mistral",
            window=Case(
                "MistralForCausalLM", {"sliding_window": 5}, lengths=(1, 6, 13), golden=True
            ),
            no_window=Case("MistralForCausalLM", {"sliding_window": None}),
        ),
    ),
    "mixtral": Family(
        "layers",
        {**LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2},
        llama_like(
            "Mixtral",
            one_of_three=Case(
                "MixtralForCausalLM", {"num_local_experts": 3, "num_experts_per_tok": 1}
            ),
            window=Case("MixtralForCausalLM", {"sliding_window": 4}, lengths=(1, 6, 13)),
        ),
    ),
    "qwen2": Family(
        "layers",
        without(LLAMA, "head_dim"),
        llama_like(
            "Qwen2",
            window_in_upper_layers=Case(
                "Qwen2ForCausalLM",
                {
                    "use_sliding_window": True,
                    "sliding_window": 4,
                    "max_window_layers": 1,
                    "num_hidden_layers": 3,
                },
                lengths=(1, 6, 13),
            ),
            rope_yarn=Case("Qwen2ForCausalLM", rope("yarn", 1e6, **YARN), lengths=LONG),
        ),
    ),
    "qwen3": Family(
        "layers",
        {**LLAMA, "head_dim": 10},
        llama_like(
            "Qwen3",
            biases=Case("Qwen3ForCausalLM", {"attention_bias": True}),
            window_in_upper_layers=Case(
                "Qwen3ForCausalLM",
                {
                    "use_sliding_window": True,
                    "sliding_window": 4,
                    "max_window_layers": 1,
                    "num_hidden_layers": 3,
                },
                lengths=(1, 6, 13),
            ),
        ),
    ),
    "qwen3_moe": Family(
        "layers",
        {
            **LLAMA,
            "head_dim": 10,
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 19,
            "norm_topk_prob": True,
        },
        llama_like(
            "Qwen3Moe",
            weights_as_they_are=Case("Qwen3MoeForCausalLM", {"norm_topk_prob": False}),
            every_second_layer=Case(
                "Qwen3MoeForCausalLM", {"decoder_sparse_step": 2, "num_hidden_layers": 4}
            ),
            some_dense_layers=Case(
                "Qwen3MoeForCausalLM", {"mlp_only_layers": [0], "num_hidden_layers": 3}
            ),
        ),
    ),
    "gemma": Family(
        "layers",
        {**LLAMA, "head_dim": 10},
        llama_like("Gemma"),
    ),
    "gemma2": Family(
        "layers",
        {
            **LLAMA,
            "head_dim": 10,
            "sliding_window": 5,
            "query_pre_attn_scalar": 17,
            "num_hidden_layers": 3,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 4.0,
        },
        llama_like(
            "Gemma2",
            longer_than_window=Case("Gemma2ForCausalLM", {}, lengths=(1, 6, 13), golden=True),
            no_caps=Case(
                "Gemma2ForCausalLM",
                {"attn_logit_softcapping": None, "final_logit_softcapping": None},
            ),
        ),
    ),
    "gemma3_text": Family(
        "layers",
        {
            **LLAMA,
            "head_dim": 10,
            "sliding_window": 4,
            "query_pre_attn_scalar": 17,
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
        {
            **without(llama_like("Gemma3"), "other-theta"),
            "longer-than-window": Case("Gemma3ForCausalLM", {}, lengths=(1, 6, 13), golden=True),
            "scaled-global": Case(
                "Gemma3ForCausalLM",
                {
                    "rope_parameters": {
                        "full_attention": {
                            "rope_type": "linear",
                            "factor": 8.0,
                            "rope_theta": 900.0,
                        },
                        "sliding_attention": {"rope_type": "default", "rope_theta": 70.0},
                    }
                },
                lengths=LONG,
            ),
            "older-config": Case(
                "Gemma3ForCausalLM",
                {
                    "layer_types": None,
                    "sliding_window_pattern": 3,
                    "rope_theta": 1_000_000.0,
                    "rope_local_base_freq": 10_000.0,
                    "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
                },
                raw_config=True,
                lengths=(1, 6, 13),
            ),
            "caps": Case(
                "Gemma3ForCausalLM",
                {"final_logit_softcapping": 4.0, "attn_logit_softcapping": 3.0},
            ),
        },
    ),
    "phi": Family(
        "layers",
        {
            **without(LLAMA, "head_dim", "num_key_value_heads"),
            "num_attention_heads": 3,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "partial_rotary_factor": 0.5,
            },
        },
        {
            "plain": Case("PhiForCausalLM", {}, golden=True),
            "grouped": Case(
                "PhiForCausalLM",
                {
                    "num_attention_heads": 6,
                    "num_key_value_heads": 2,
                    **rope("default", partial_rotary_factor=0.67),
                },
            ),
            "query-key-norm": Case("PhiForCausalLM", {"qk_layernorm": True}),
            "tied": Case("PhiForCausalLM", {"tie_word_embeddings": True}),
            "older-config": Case(
                "PhiForCausalLM",
                {"partial_rotary_factor": 0.34, "rope_theta": 500.0, "rope_parameters": None},
                raw_config=True,
            ),
        },
    ),
    "phi3": Family(
        "layers",
        without(LLAMA, "head_dim"),
        llama_like(
            "Phi3",
            window=Case("Phi3ForCausalLM", {"sliding_window": 5}, lengths=(1, 6, 13)),
            partial=Case("Phi3ForCausalLM", rope("default", partial_rotary_factor=0.34)),
            longrope_within=Case(
                "Phi3ForCausalLM",
                {
                    **rope(
                        "longrope",
                        short_factor=[1.0, 1.2, 1.5],
                        long_factor=[1.0, 3.0, 9.0],
                        original_max_position_embeddings=32,
                    ),
                    "original_max_position_embeddings": 32,
                    "max_position_embeddings": 128,
                },
            ),
            longrope_beyond=Case(
                "Phi3ForCausalLM",
                {
                    **rope(
                        "longrope",
                        short_factor=[1.0, 1.2, 1.5],
                        long_factor=[1.0, 3.0, 9.0],
                        original_max_position_embeddings=16,
                    ),
                    "original_max_position_embeddings": 16,
                    "max_position_embeddings": 128,
                },
                lengths=(19, 24),
                cached=False,
                greedy=False,
            ),
            older_config=Case(
                "Phi3ForCausalLM",
                {
                    "rope_theta": 10_000.0,
                    "rope_scaling": {
                        "type": "longrope",
                        "short_factor": [1.0, 1.2, 1.5],
                        "long_factor": [1.0, 3.0, 9.0],
                    },
                    "original_max_position_embeddings": 32,
                    "max_position_embeddings": 128,
                },
                raw_config=True,
            ),
        ),
    ),
    "smollm3": Family(
        "layers",
        {**without(LLAMA, "head_dim"), "num_hidden_layers": 4},
        llama_like(
            "SmolLM3",
            every_second_without=Case("SmolLM3ForCausalLM", {"no_rope_layer_interval": 2}),
            chosen_layers=Case("SmolLM3ForCausalLM", {"no_rope_layers": [1, 0, 0, 1]}),
            biases=Case("SmolLM3ForCausalLM", {"attention_bias": True, "mlp_bias": True}),
            window=Case(
                "SmolLM3ForCausalLM",
                {"use_sliding_window": True, "sliding_window": 5, "no_rope_layer_interval": 2},
                lengths=(1, 6, 13),
            ),
        ),
    ),
    "stablelm": Family(
        "layers",
        {
            **without(LLAMA, "head_dim"),
            "hidden_size": 48,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "partial_rotary_factor": 0.25,
            },
        },
        {
            **without(llama_like("StableLm"), "other-theta"),
            "biases": Case("StableLmForCausalLM", {"use_qkv_bias": True}, golden=True),
            "query-key-norm": Case("StableLmForCausalLM", {"qk_layernorm": True}),
            "parallel": Case("StableLmForCausalLM", {"use_parallel_residual": True}),
            "parallel-query-key-norm": Case(
                "StableLmForCausalLM", {"use_parallel_residual": True, "qk_layernorm": True}
            ),
            "older-config": Case(
                "StableLmForCausalLM",
                {"partial_rotary_factor": 0.5, "rope_theta": 500, "rope_parameters": None},
                raw_config=True,
            ),
        },
    ),
    "olmo2": Family(
        "layers",
        without(LLAMA, "head_dim"),
        llama_like("Olmo2", biases=Case("Olmo2ForCausalLM", {"attention_bias": True})),
    ),
    "starcoder2": Family(
        "layers",
        without(LLAMA, "head_dim"),
        llama_like(
            "Starcoder2",
            window=Case("Starcoder2ForCausalLM", {"sliding_window": 5}, lengths=(1, 6, 13)),
            no_bias=Case("Starcoder2ForCausalLM", {"use_bias": False}),
        ),
    ),
    "gpt_oss": Family(
        "layers",
        {
            **LLAMA,
            "head_dim": 10,
            "intermediate_size": 36,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 5,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 150_000.0,
                "factor": 4.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
                "original_max_position_embeddings": 16,
            },
        },
        llama_like(
            "GptOss",
            longer_than_window=Case("GptOssForCausalLM", {}, lengths=(1, 6, 13), golden=True),
            no_bias=Case("GptOssForCausalLM", {"attention_bias": False}),
            all_global=Case(
                "GptOssForCausalLM", {"layer_types": ["full_attention"] * 2}, lengths=(1, 6, 13)
            ),
        ),
    ),
}
