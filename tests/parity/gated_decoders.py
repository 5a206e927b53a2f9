"""Cases of the decoders with gated feed-forward layers: Llama and those that came after it."""

from .cases import Case, Family
from .decoders import CLASSES, LLAMA, LONG, rope, without


def llama_like(prefix: str, **cases: Case) -> dict[str, Case]:
    """Grouped, ungrouped, one key head, tied and untied."""
    architecture = f"{prefix}ForCausalLM"
    return {
        "grouped": Case(architecture, {"tie_word_embeddings": False}, golden=True),
        "ungrouped": Case(architecture, {"num_key_value_heads": 6, "tie_word_embeddings": False}),
        "one-key-head": Case(architecture, {"num_key_value_heads": 1}),
        "tied": Case(architecture, {"tie_word_embeddings": True}),
        "tied-head-in-file": Case(
            architecture,
            {"tie_word_embeddings": True},
            copies={"lm_head.weight": "model.embed_tokens.weight"},
        ),
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

GATED_DECODERS: dict[str, Family] = {
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
            question_answering=Case("Qwen2ForQuestionAnswering", {}),
            token_classification=Case("Qwen2ForTokenClassification", CLASSES),
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
        llama_like(
            "Gemma",
            sequence_classification=Case("GemmaForSequenceClassification", CLASSES),
        ),
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
            "sequence-classification": Case("Gemma3TextForSequenceClassification", CLASSES),
            "caps": Case(
                "Gemma3ForCausalLM",
                {"final_logit_softcapping": 4.0, "attn_logit_softcapping": 3.0},
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
            sequence_classification=Case("GptOssForSequenceClassification", CLASSES),
            all_global=Case(
                "GptOssForCausalLM", {"layer_types": ["full_attention"] * 2}, lengths=(1, 6, 13)
            ),
        ),
    ),
}
