"""Cases of the decoders; those with gated feed-forward layers stand in `gated_decoders.py`."""

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


DECODERS: dict[str, Family] = {
    "openai-gpt": Family(
        "h",
        GPT,
        {
            "plain": Case("OpenAIGPTLMHeadModel", {}, golden=True),
            "untied": Case("OpenAIGPTLMHeadModel", {"tie_word_embeddings": False}),
            "relu": Case("OpenAIGPTLMHeadModel", {"afn": "relu"}),
            "bare-names-and-masks": Case(
                "OpenAIGPTLMHeadModel",
                {},
                prefixed=False,
                extra={f"h.{i}.attn.bias": (1, 1, 40, 40) for i in range(2)},
            ),
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
            "hub-file": Case(
                "GPTNeoForCausalLM",
                {},
                extra={
                    "transformer.h.0.attn.attention.bias": (1, 1, 40, 40),
                    "transformer.h.0.attn.attention.masked_bias": (),
                },
                copies={"lm_head.weight": "transformer.wte.weight"},
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
            "hub-file": Case(
                "GPTNeoXForCausalLM",
                {},
                extra={
                    "gpt_neox.layers.0.attention.bias": (1, 1, 64, 64),
                    "gpt_neox.layers.0.attention.masked_bias": (),
                    "gpt_neox.layers.0.attention.rotary_emb.inv_freq": (2,),
                },
            ),
            "sequential": Case("GPTNeoXForCausalLM", {"use_parallel_residual": False}),
            "tied": Case("GPTNeoXForCausalLM", {"tie_word_embeddings": True}),
            "token-classification": Case("GPTNeoXForTokenClassification", CLASSES),
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
            "hub-file": Case(
                "GPTJForCausalLM",
                {},
                extra={
                    "transformer.h.0.attn.bias": (1, 1, 40, 40),
                    "transformer.h.0.attn.masked_bias": (),
                },
            ),
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
            "bare-names": Case("OPTForCausalLM", {}, prefixed=False),
            "tied-head-in-file": Case(
                "OPTForCausalLM",
                {},
                copies={"lm_head.weight": "model.decoder.embed_tokens.weight"},
            ),
            "projected": Case("OPTForCausalLM", {"word_embed_proj_dim": 20}),
            "projected-sequence-classification": Case(
                "OPTForSequenceClassification", {**CLASSES, "word_embed_proj_dim": 20}
            ),
            "projected-question-answering": Case(
                "OPTForQuestionAnswering", {"word_embed_proj_dim": 20}
            ),
            "projected-bare": Case("OPTModel", {"word_embed_proj_dim": 20}),
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
            "question-answering": Case("BloomForQuestionAnswering", {}),
            "sequence-classification": Case("BloomForSequenceClassification", CLASSES),
            "six-heads": Case("BloomForCausalLM", {"n_head": 6}),
            "residual-behind-norm": Case(
                "BloomForCausalLM",
                {"apply_residual_connection_post_layernorm": True},
                required=False,
            ),
            "bare-names": Case("BloomForCausalLM", {}, prefixed=False),
            "tied-head-in-file": Case(
                "BloomForCausalLM",
                {},
                copies={"lm_head.weight": "transformer.word_embeddings.weight"},
            ),
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
            "7b-hub-file": Case(
                "FalconForCausalLM",
                {},
                copies={"lm_head.weight": "transformer.word_embeddings.weight"},
            ),
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
                attention="sdpa",  # the plain one adds the bias twice
            ),
            "refined-web-alibi-rounded": Case(
                "FalconForCausalLM",
                {
                    "alibi": True,
                    "parallel_attn": False,
                    "multi_query": False,
                    "bias": True,
                    "num_attention_heads": 12,
                },
                attention="sdpa",
                lengths=LONG,
                golden=True,
            ),
            "sequential-rotary": Case(
                "FalconForCausalLM", {"parallel_attn": False, "multi_query": False}
            ),
            "inner-untied": Case(
                "FalconForCausalLM", {"ffn_hidden_size": 53, "tie_word_embeddings": False}
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
}
