"""Which keras-nlp backbone is which family here; see `zoo.checkpoints.keras_nlp_rows.Twin`."""

from collections.abc import Callable, Mapping
from typing import Any

from zoo.checkpoints.facts import Reader
from zoo.checkpoints.keras_nlp_rows import (
    DECODER_BLOCKS,
    ENCODER_BLOCKS,
    HEADS_FIRST,
    LAYER,
    Keys,
    Twin,
    attention,
    block,
    dense,
    layer_norm,
    rms_norm,
    tables,
    zeros,
)
from zoo.checkpoints.table import Row, row

EMBEDDING_NORM = layer_norm("encoder/embeddings/norm", "embeddings_layer_norm")
OWN_HEAD = (row("head/output/kernel", "token_embedding/reverse_embeddings"),)
POOLED = (*dense("head/dense", "pooled_dense"), *dense("head/logits", "logits"))
MASKED = (
    *dense("head/dense", "mlm_head/intermediate_dense"),
    *layer_norm("head/norm", "mlm_head/intermediate_layer_norm"),
    row("head/bias", "mlm_head/output_bias"),
)
CLASSIFIES = {"text-classification": POOLED}

SIZES = {
    "vocabulary_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "hidden_dim": "hidden_size",
    "intermediate_dim": "intermediate_size",
}
ENCODER_SIZES = {
    **SIZES,
    "dropout": "hidden_dropout_prob",
    "max_sequence_length": "max_position_embeddings",
}


def _attention_dropout(reader: Reader) -> Keys:
    return {"attention_probs_dropout_prob": reader.get("dropout")}


# RoBERTa: their table begins with the first position, a file's with rows for padding before it.


def _roberta_more(reader: Reader) -> Keys:
    length = reader.get("max_sequence_length")
    return {"max_position_embeddings": length + 2, **_attention_dropout(reader)}


def roberta(model_type: str) -> Twin:
    """RoBERTa and what differs by its vocabulary."""
    return Twin(
        model_type,
        {ours: key for ours, key in ENCODER_SIZES.items() if ours != "max_sequence_length"},
        (
            *tables("encoder", "embeddings/token_embedding", "embeddings/position_embedding"),
            row(
                "encoder/embeddings/types/table",
                (),
                zeros(lambda config: (config.token_types, config.embedding_dim)),
            ),
            *EMBEDDING_NORM,
            *ENCODER_BLOCKS,
        ),
        {**CLASSIFIES, "fill-mask": MASKED},
        {"layer_norm_eps": 1e-5, "hidden_act": "gelu", "type_vocab_size": 1},
        _roberta_more,
    )


# Llama and its relatives

GATED = {
    "vocabulary_size": "vocab_size",
    "num_layers": "num_hidden_layers",
    "num_query_heads": "num_attention_heads",
    "num_key_value_heads": "num_key_value_heads",
    "hidden_dim": "hidden_size",
    "intermediate_dim": "intermediate_size",
    "layer_norm_epsilon": "rms_norm_eps",
    "dropout": "attention_dropout",
}
ROTARY = {**GATED, "rope_max_wavelength": "rope_theta"}
LLAMA_BLOCK = "decoder/block_{i}"
LLAMA_ROWS = (
    *tables("decoder", "token_embedding", None),
    *attention(f"{LLAMA_BLOCK}/attention", f"{LAYER}/self_attention"),
    *rms_norm(f"{LLAMA_BLOCK}/attention_norm", f"{LAYER}/self_attention_layernorm"),
    *rms_norm(f"{LLAMA_BLOCK}/feed_forward_norm", f"{LAYER}/feedforward_layernorm"),
    *dense(f"{LLAMA_BLOCK}/feed_forward/gate", f"{LAYER}/feedforward_gate_dense"),
    *dense(f"{LLAMA_BLOCK}/feed_forward/up", f"{LAYER}/feedforward_intermediate_dense"),
    *dense(f"{LLAMA_BLOCK}/feed_forward/down", f"{LAYER}/feedforward_output_dense"),
    *rms_norm("decoder/final_norm", "sequence_output_layernorm"),
)
WRITES = {"text-generation": OWN_HEAD}
LLAMA_3_KEYS = {
    "rope_frequency_adjustment_factor": "factor",
    "rope_low_freq_factor": "low_freq_factor",
    "rope_high_freq_factor": "high_freq_factor",
    "rope_pretraining_sequence_length": "original_max_position_embeddings",
}


def _known(reader: Reader, **ids: int | list[int] | None) -> Keys:
    """Special tokens, which a backbone does not say; none where its vocabulary is smaller."""
    size = reader.get("vocabulary_size")

    def within(value: Any) -> bool:
        return value is None or max(value if isinstance(value, list) else [value]) < size

    return {f"{name}_token_id": value if within(value) else None for name, value in ids.items()}


def llama(bos: int, eos: int | list[int]) -> Twin:
    """Llama with the special tokens of its vocabulary."""

    def more(reader: Reader) -> Keys:
        if reader.get("rope_position_scaling_factor", 1.0) != 1.0:
            raise reader.refuse("rope_position_scaling_factor", "is read by none of their layers")
        scaling = {key: reader.get(name) for name, key in LLAMA_3_KEYS.items()}
        stretched = {"rope_scaling": {"rope_type": "llama3", **scaling}}
        stretched = {} if scaling["factor"] is None else stretched
        return {**stretched, **_known(reader, bos=bos, eos=eos)}

    return Twin("llama", ROTARY, LLAMA_ROWS, WRITES, {}, more, "max_position_embeddings")


def _linear(reader: Reader) -> Keys:
    factor = reader.get("rope_scaling_factor")
    return {} if factor == 1 else {"rope_scaling": {"rope_type": "linear", "factor": factor}}


def _qwen_more(reader: Reader) -> Keys:
    size = reader.get("sliding_window_size")
    local = reader.get("use_sliding_window_attention")
    count = reader.get("num_layers")
    kinds = {"layer_types": ["sliding_attention"] * count, "sliding_window": size} if local else {}
    end = _known(reader, bos=151643, eos=151643)
    return {"use_sliding_window": local, **kinds, **_linear(reader), **end}


# Gemma: heads first, norms stored as scale less 1, both halves of the gate in intermediate_dim

GEMMA_LAYER = "decoder_block_{i}"
GEMMA_ROWS = (
    *tables("decoder", "token_embedding", None),
    *attention(f"{LLAMA_BLOCK}/attention", f"{GEMMA_LAYER}/attention", HEADS_FIRST),
    *rms_norm(f"{LLAMA_BLOCK}/attention_norm", f"{GEMMA_LAYER}/pre_attention_norm"),
    *rms_norm(f"{LLAMA_BLOCK}/attention_post_norm", f"{GEMMA_LAYER}/post_attention_norm"),
    *rms_norm(f"{LLAMA_BLOCK}/feed_forward_norm", f"{GEMMA_LAYER}/pre_ffw_norm"),
    *rms_norm(f"{LLAMA_BLOCK}/feed_forward_post_norm", f"{GEMMA_LAYER}/post_ffw_norm"),
    *dense(f"{LLAMA_BLOCK}/feed_forward/gate", f"{GEMMA_LAYER}/ffw_gating"),
    *dense(f"{LLAMA_BLOCK}/feed_forward/up", f"{GEMMA_LAYER}/ffw_gating_2"),
    *dense(f"{LLAMA_BLOCK}/feed_forward/down", f"{GEMMA_LAYER}/ffw_linear"),
    *rms_norm("decoder/final_norm", "final_normalization"),
)
GEMMA_KEYS = {**GATED, "head_dim": "head_dim"}


def _gemma_more(reader: Reader) -> Keys:
    if reader.get("layer_norm_epsilon") != 1e-6:
        raise reader.refuse("layer_norm_epsilon", "is that of their last norm alone")
    if not reader.get("query_head_dim_normalize"):
        raise reader.refuse("query_head_dim_normalize", "is read by none of their layers")
    return {"intermediate_size": reader.get("intermediate_dim") // 2}


def _gemma_1_more(reader: Reader) -> Keys:
    reader.seen.add("sliding_window_size")  # unread beside use_sliding_window_attention = False
    return _gemma_more(reader)


def _gemma_2_more(reader: Reader) -> Keys:
    local = reader.get("use_sliding_window_attention")
    size = reader.get("sliding_window_size")
    for name in ("use_post_ffw_norm", "use_post_attention_norm"):
        if not reader.get(name):
            raise reader.refuse(name, "is not supported beside the other norm")
    return {
        "query_pre_attn_scalar": reader.get("head_dim"),
        "sliding_window": size if local else None,
        "attn_logit_softcapping": reader.get("attention_logit_soft_cap"),
        "final_logit_softcapping": reader.get("final_logit_soft_cap"),
        **_gemma_more(reader),
    }


GEMMA = Twin("gemma", GEMMA_KEYS, GEMMA_ROWS, WRITES, {}, _gemma_1_more, "max_position_embeddings")
GEMMA_2 = Twin(
    "gemma2", GEMMA_KEYS, GEMMA_ROWS, WRITES, {}, _gemma_2_more, "max_position_embeddings"
)


def gemma(theirs: Mapping[str, Any]) -> Twin:
    """Version 1 or 2, which are one class of theirs."""
    second = ("use_post_ffw_norm", "use_post_attention_norm", "attention_logit_soft_cap")
    return GEMMA_2 if any(theirs.get(name) for name in second) else GEMMA


# T5: each side's relative bias and the unnamed norms are told apart by their order

T5_LAYERS = {
    "encoder": [("attention", "self_attention")],
    "decoder": [("attention", "self_attention"), ("cross_attention", "cross_attention")],
}
T5_PARTS = {name: f"{name}_projector" for name in ("query", "key", "value", "output")}


def _t5_stack(side: str) -> tuple[Row, ...]:
    ours, layer = f"{side}/block_{{i}}", f"transformer_{side}_layer_{{i}}"
    bias = "self_attention/embeddings" + ("" if side == "encoder" else "#1")
    norm, marks = f"{layer}/t5_layer_norm", ["weight", "weight#1", "weight#2"]
    rows = [row(f"{side}/relative_bias/buckets/table", bias)]
    for name, theirs in T5_LAYERS[side]:
        rows += rms_norm(f"{ours}/{name}_norm", norm, marks.pop(0))
        for part, projector in T5_PARTS.items():
            rows += dense(f"{ours}/{name}/{part}", f"{layer}/{theirs}/{projector}")
    rows += rms_norm(f"{ours}/feed_forward_norm", norm, marks.pop(0))
    for gated, first in ((True, "gate"), (False, "up")):  # the one with the activation
        kernel = f"{ours}/feed_forward/{first}/kernel"
        theirs = f"{layer}/input_projector/kernel"
        rows.append(row(kernel, theirs, when=lambda config, gated=gated: config.gated == gated))
    second = row(
        f"{ours}/feed_forward/up/kernel",
        f"{layer}/gate_projector/kernel",
        when=lambda config: config.gated,
    )
    down = dense(f"{ours}/feed_forward/down", f"{layer}/output_projector")
    final = rms_norm(f"{side}/final_norm", f"{side}_output_layer_norm", "weight")
    return (*rows, second, *down, *final)


def _t5_more(reader: Reader) -> Keys:
    function = reader.get("activation")
    if isinstance(function, Mapping):
        function = function["config"] if isinstance(function.get("config"), str) else function
    name = str(function).rpartition(">")[2]
    names = {"gelu_approximate": "gelu_new"}
    width = reader.get("hidden_dim") // reader.get("num_heads")
    return {
        "dense_act_fn": names.get(name, name),
        "is_gated_act": reader.get("use_gated_activation"),
        "d_kv": reader.get("key_value_dim") or width,
        "scale_decoder_outputs": reader.get("tie_embedding_weights"),
    }


# BART

BART_SIDES = {
    "encoder": [("attention", "self_attention_layer")],
    "decoder": [("attention", "self_attention"), ("cross_attention", "cross_attention")],
}


def _bart_stack(side: str) -> tuple[Row, ...]:
    return (
        *tables(side, "token_embedding", f"{side}_position_embedding"),
        *layer_norm(f"{side}/embeddings/norm", f"{side}_embeddings_layer_norm"),
        *block(side, f"transformer_{side}_layer_{{i}}", BART_SIDES[side]),
    )


def _bart_more(reader: Reader) -> Keys:
    sides = ("encoder", "decoder")
    names = {
        "num_layers": "layers",
        "num_heads": "attention_heads",
        "intermediate_dim": "ffn_dim",
    }
    keys = {f"{side}_{key}": reader.get(ours) for ours, key in names.items() for side in sides}
    return {**keys, "attention_dropout": reader.get("dropout")}


BART_HEAD = (row("head/bias", (), zeros(lambda config: (config.vocab_size,))),)


def _gpt2_more(reader: Reader) -> Keys:
    return {"attn_pdrop": reader.get("dropout"), **_known(reader, bos=50256, eos=50256)}


DECODER_ROWS = (*DECODER_BLOCKS, *layer_norm("decoder/final_norm", "layer_norm"))

TWINS: Mapping[str, Twin | Callable[[Mapping[str, Any]], Twin]] = {
    "BertBackbone": Twin(
        "bert",
        {**ENCODER_SIZES, "num_segments": "type_vocab_size"},
        (
            *tables("encoder", "token_embedding", "position_embedding"),
            row("encoder/embeddings/types/table", "segment_embedding/embeddings"),
            *EMBEDDING_NORM,
            *ENCODER_BLOCKS,
        ),
        CLASSIFIES,
        {"layer_norm_eps": 1e-12, "hidden_act": "gelu_new"},
        _attention_dropout,
    ),
    "RobertaBackbone": roberta("roberta"),
    "XLMRobertaBackbone": roberta("xlm-roberta"),
    "DistilBertBackbone": Twin(
        "distilbert",
        {
            "vocabulary_size": "vocab_size",
            "num_layers": "n_layers",
            "num_heads": "n_heads",
            "hidden_dim": "dim",
            "intermediate_dim": "hidden_dim",
            "dropout": "dropout",
            "max_sequence_length": "max_position_embeddings",
        },
        (
            *tables(
                "encoder",
                "token_and_position_embedding/token_embedding",
                "token_and_position_embedding/position_embedding",
            ),
            *EMBEDDING_NORM,
            *ENCODER_BLOCKS,
        ),
        CLASSIFIES,
        {"activation": "gelu"},
        lambda reader: {"attention_dropout": reader.get("dropout")},
    ),
    "GPT2Backbone": Twin(
        "gpt2",
        {
            "vocabulary_size": "vocab_size",
            "num_layers": "n_layer",
            "num_heads": "n_head",
            "hidden_dim": "n_embd",
            "intermediate_dim": "n_inner",
            "dropout": "resid_pdrop",
            "max_sequence_length": "n_positions",
        },
        (*tables("decoder", "token_embedding", "position_embedding"), *DECODER_ROWS),
        WRITES,
        {"layer_norm_epsilon": 1e-5, "activation_function": "gelu_new"},
        _gpt2_more,
    ),
    "OPTBackbone": Twin(
        "opt",
        {
            **SIZES,
            "intermediate_dim": "ffn_dim",
            "dropout": "dropout",
            "max_sequence_length": "max_position_embeddings",
        },
        (
            *tables("decoder", "embeddings/token_embedding", "embeddings/position_embedding"),
            *DECODER_ROWS,
        ),
        WRITES,
        {"activation_function": "relu"},
        lambda reader: {"attention_dropout": reader.get("dropout")},
    ),
    "LlamaBackbone": llama(bos=1, eos=2),
    "Llama3Backbone": llama(bos=128000, eos=[128001, 128009]),
    "MistralBackbone": Twin(
        "mistral",
        {**ROTARY, "head_dim": "head_dim", "sliding_window": "sliding_window"},
        LLAMA_ROWS,
        WRITES,
        {},
        _linear,
        "max_position_embeddings",
    ),
    "QwenBackbone": Twin(
        "qwen2", ROTARY, LLAMA_ROWS, WRITES, {}, _qwen_more, "max_position_embeddings"
    ),
    "GemmaBackbone": gemma,
    "BartBackbone": Twin(
        "bart",
        {
            "vocabulary_size": "vocab_size",
            "hidden_dim": "d_model",
            "dropout": "dropout",
            "max_sequence_length": "max_position_embeddings",
        },
        (*_bart_stack("encoder"), *_bart_stack("decoder")),
        {"text2text-generation": BART_HEAD},
        {"activation_function": "gelu", "scale_embedding": False},
        _bart_more,
    ),
    "T5Backbone": Twin(
        "t5",
        {
            "vocabulary_size": "vocab_size",
            "hidden_dim": "d_model",
            "intermediate_dim": "d_ff",
            "num_layers": "num_layers",
            "num_heads": "num_heads",
            "dropout": "dropout_rate",
            "layer_norm_epsilon": "layer_norm_epsilon",
        },
        (*tables("encoder", "token_embedding", None), *_t5_stack("encoder")),
        {"text2text-generation": (*_t5_stack("decoder"), *OWN_HEAD)},
        {},
        _t5_more,
        "n_positions",
    ),
}
"""Their class -> its twin, or what finds the twin of one config."""
