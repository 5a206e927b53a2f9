"""Tiny models by name, which together use every fact: a row here gets every test by existing.

Weights are large (`initializer_range`), so that outputs differ where they should, and sizes are odd
where the architecture allows it, so that no axis can be taken for another.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

import zoo
from zoo.backbones.config import TransformerConfig

LABELS = ("first", "second", "third")

SMALL: Mapping[str, Any] = {
    "vocab_size": 37,
    "hidden_dim": 24,
    "num_layers": 1,
    "num_heads": 3,
    "head_dim": 8,
    "intermediate_dim": 35,
    "max_length": 40,
    "dropout": 0.0,
    "initializer_range": 0.25,
    "pad_token_id": 0,
}

ENCODERS: dict[str, dict[str, Any]] = {
    "segments-postnorm": {
        "num_layers": 2,
        "norm_position": "post",
        "token_types": 2,
        "embedding_norm": True,
    },
    "rotary-gated-rms": {
        "num_layers": 2,
        "positions": "rotary",
        "gated": True,
        "activation": "silu",
        "norm": "rms",
        "attention_bias": False,
        "projection_bias": False,
    },
    "local-and-global": {
        "num_layers": 2,
        "positions": "rotary",
        "rotary_base": 100.0,
        "window": 3,
        "global_layers": (0,),
        "norm_bias": False,
    },
    "relative": {
        "positions": "none",
        "position_bias": "relative",
        "relative_buckets": 8,
        "relative_max_distance": 12,
        "norm": "rms",
        "activation": "relu",
        "attention_scale": 1.0,
    },
    "alibi": {
        "num_layers": 2,
        "positions": "none",
        "position_bias": "alibi",
        "activation": "gelu_tanh",
    },
    "sinusoidal": {
        "positions": "sinusoidal",
        "norm_position": "post",
        "hidden_dim": 21,
        "embedding_scale": 21**0.5,
    },
    "sandwich": {"norm_position": "sandwich", "norm": "rms", "final_norm": False},
    "qk-norm-rms": {"qk_norm": "rms", "positions": "rotary", "rotary_fraction": 0.5},
    "qk-norm-layer": {"qk_norm": "layer", "activation": "tanh"},
    "no-positions": {"positions": "none", "parallel_residual": True},
    "softcap": {"attention_softcap": 2.0, "logit_softcap": 5.0},
    "grouped": {"num_heads": 4, "num_kv_heads": 2, "gated": True, "tie_embeddings": False},
    "shared-narrow-embedding": {
        "num_layers": 3,
        "shared_blocks": 2,
        "embedding_dim": 10,
        "embedding_norm": True,
        "token_types": 2,
        "norm_position": "post",
        "position_offset": 2,
    },
    "disentangled": {
        "num_layers": 2,
        "positions": "none",
        "position_bias": "disentangled",
        "relative_buckets": 6,
        "relative_max_distance": 12,
        "norm_position": "post",
        "attention_scale": (3 * 8) ** -0.5,
        "embedding_norm": True,
    },
    "two-rotary-bases": {
        "num_layers": 3,
        "positions": "rotary",
        "local_rotary_base": 50.0,
        "window": 2,
        "global_layers": (0,),
        "first_norm": False,
        "head_bias": False,
        "head_activation": "relu_squared",
    },
    "ngrams": {"ngram_lengths": (2, 4), "ngram_buckets": 31, "positions": "rotary"},
    "learned-and-relative": {
        "position_bias": "relative",
        "relative_buckets": 8,
        "relative_max_distance": 12,
        "activation": "gelu_sigmoid",
    },
    "disentangled-one-way": {
        "position_bias": "disentangled",
        "relative_buckets": 5,
        "relative_max_distance": None,
        "disentangled_terms": ("content_to_position",),
        "distance_norm": False,
        "distance_projections": True,
    },
    "blocks-in-turn": {
        "num_layers": 8,
        "shared_blocks": 4,
        "blocks_in_turn": 2,
        "embedding_projection": True,
        "logit_bias": False,
    },
}

DECODERS: dict[str, dict[str, Any]] = {
    "learned-gelu-tanh": {"num_layers": 2, "activation": "gelu_tanh"},
    "rotary-grouped-gated": {
        "num_layers": 2,
        "positions": "rotary",
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 16,
        "norm": "rms",
        "gated": True,
        "activation": "silu",
        "attention_bias": False,
        "projection_bias": False,
    },
    "alibi": {"positions": "none", "position_bias": "alibi", "embedding_norm": True},
    "parallel-partial-rotary": {
        "positions": "rotary",
        "rotary_fraction": 0.5,
        "rotary_interleaved": True,
        "head_dim": 16,
        "parallel_residual": True,
    },
    "sliding-window": {"positions": "rotary", "head_dim": 16, "window": 4, "norm": "rms"},
    "sandwich-softcaps": {
        "num_layers": 2,
        "norm_position": "sandwich",
        "norm": "rms",
        "attention_softcap": 3.0,
        "logit_softcap": 6.0,
        "qk_norm": "rms",
        "positions": "rotary",
        "rotary_interleaved": True,
        "head_dim": 16,
        "embedding_scale": 4.9,
        "window": 5,
        "global_layers": (0,),
    },
    "odd-heads": {"head_dim": 6, "num_heads": 4, "num_kv_heads": 2, "positions": "rotary"},
    "small-heads": {"head_dim": 8, "positions": "rotary", "num_kv_heads": 1},
    "untied": {"tie_embeddings": False, "positions": "sinusoidal"},
    "postnorm": {"num_layers": 2, "norm_position": "post", "activation": "relu"},
    "relative-scaled": {
        "positions": "none",
        "position_bias": "relative",
        "relative_buckets": 6,
        "relative_max_distance": 9,
        "embedding_scale": 0.7,
        "attention_scale": 1.0,
    },
    "no-positions": {"positions": "none", "qk_norm": "layer", "final_norm": False},
    "output-norm": {
        "num_layers": 2,
        "norm_position": "output",
        "norm": "rms",
        "qk_norm": "rms",
        "qk_norm_scope": "all",
        "positions": "rotary",
        "head_dim": 16,
    },
    "experts": {
        "num_layers": 2,
        "num_experts": 5,
        "experts_per_token": 3,
        "expert_dim": 11,
        "expert_bias": True,
        "expert_weights": "softmax_chosen",
        "gate_limit": 2.0,
        "gated": True,
        "attention_sinks": True,
        "positions": "rotary",
        "head_dim": 16,
        "dense_layers": (1,),
        "rotary_scaling": {"kind": "yarn", "factor": 4.0, "original_length": 12},
    },
    "experts-of-all": {
        "num_experts": 3,
        "gated": True,
        "expert_weights": "softmax_all",
        "norm": "rms",
        "norm_unit_offset": True,
    },
    "shared-norm": {
        "parallel_residual": True,
        "shared_norm": True,
        "positions": "rotary",
        "head_dim": 16,
        "unturned_layers": (1,),
        "num_layers": 2,
        "logit_bias": True,
        "tie_embeddings": False,
        "attention_output_bias": False,
        "rotary_scaling": {"kind": "llama3", "factor": 8.0, "original_length": 32},
    },
    "dynamic-rotary": {
        "positions": "rotary",
        "head_dim": 16,
        "rotary_scaling": {"kind": "dynamic", "factor": 3.0, "original_length": 38},
    },
    "longrope": {
        "positions": "rotary",
        "head_dim": 8,
        "rotary_scaling": {
            "kind": "longrope",
            "factor": 4.0,
            "original_length": 38,
            "short_factors": (1.0, 1.1, 1.2, 1.3),
            "long_factors": (1.0, 2.0, 3.0, 4.0),
        },
        "qk_norm": "layer",
        "qk_norm_scope": "each_head",
        "norm_bias": False,
    },
    "narrow-embedding": {
        "embedding_dim": 10,
        "embedding_projection_bias": False,
        "embedding_projection_first": True,
        "position_offset": 2,
        "positions": "sinusoidal",
        "sinusoid_form": "tensor2tensor",
        "logit_scale": 0.5,
    },
    "linear-rotary": {
        "positions": "rotary",
        "rotary_scaling": {"kind": "linear", "factor": 2.0},
    },
    "rounded-alibi": {
        "num_layers": 2,
        "positions": "none",
        "position_bias": "rounded_alibi",
        "qk_norm": "layer",
        "qk_norm_scope": "each_head",
    },
    "unscaled-norms": {
        "num_layers": 2,
        "norm_scale": False,
        "norm_bias": False,
        "qk_norm": "layer",
        "embedding_dim": 10,
        "output_dim": 14,
    },
    "offset-in-some-norms": {"qk_norm": "layer", "qk_norm_bias": False},
}

ENCODER_DECODERS: dict[str, dict[str, Any]] = {
    "sinusoidal-postnorm": {
        "num_layers": 2,
        "positions": "sinusoidal",
        "norm_position": "post",
        "activation": "relu",
        "num_decoder_layers": 1,
        "max_target_length": 33,
        "embedding_scale": 24**0.5,
    },
    "relative-rms": {
        "positions": "none",
        "position_bias": "relative",
        "norm": "rms",
        "attention_scale": 1.0,
        "relative_buckets": 8,
        "relative_max_distance": 12,
        "attention_bias": False,
        "projection_bias": False,
        "activation": "gelu_tanh",
        "gated": True,
        "tie_embeddings": False,
    },
    "learned-unshared": {
        "norm_position": "post",
        "embedding_norm": True,
        "share_embeddings": False,
        "num_decoder_layers": 2,
        "decoder_start_token_id": 3,
    },
    "rotary-grouped": {
        "positions": "rotary",
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 16,
        "norm": "rms",
        "max_target_length": 33,
    },
    "different-stacks": {
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 5,
        "num_decoder_layers": 1,
        "decoder_num_heads": 6,
        "decoder_intermediate_dim": 29,
        "positions": "sinusoidal",
        "sinusoid_form": "interleaved",
        "logit_bias": True,
    },
}

CONFIGS: dict[str, TransformerConfig] = {
    **{f"encoder/{name}": zoo.EncoderConfig(**{**SMALL, **row}) for name, row in ENCODERS.items()},
    **{f"decoder/{name}": zoo.DecoderConfig(**{**SMALL, **row}) for name, row in DECODERS.items()},
    **{
        f"encoder-decoder/{name}": zoo.EncoderDecoderConfig(**{**SMALL, **row})
        for name, row in ENCODER_DECODERS.items()
    },
}

_ENCODER_TASKS = (
    "fill-mask",
    "text-classification",
    "token-classification",
    "question-answering",
    "feature-extraction",
    "sentence-similarity",
)
_TASKS = {"decoder": "text-generation", "encoder-decoder": "text2text-generation"}


def architecture(name: str) -> str:
    return name.split("/")[0]


def named(*architectures: str) -> list[str]:
    """The rows of these architectures, all where none is given."""
    return [name for name in CONFIGS if not architectures or architecture(name) in architectures]


GENERATING = named("decoder", "encoder-decoder")


def task_of(name: str) -> str:
    """The task a row is tested with: encoders take turns, so that two of them meet each task."""
    kind = architecture(name)
    if kind != "encoder":
        return _TASKS[kind]
    return _ENCODER_TASKS[named("encoder").index(name) % len(_ENCODER_TASKS)]


def model(name: str, task: str | None = None, seed: int = 7, **given: Any) -> zoo.TaskModel:
    """A model of a row's config, always with the same weights; no weight is left at 0 or 1."""
    keras.utils.set_random_seed(seed)
    task = task or task_of(name)
    if task in ("text-classification", "token-classification"):
        given.setdefault("labels", LABELS)
    made = zoo.TaskModel(CONFIGS[name], task, **given)
    stir(made, seed)
    return made


def stir(made: keras.Model, seed: int) -> None:
    """Moves what begins as 0 or 1 off it, so that a lost weight is noticed."""
    rng = np.random.default_rng(seed)
    for weight in made.weights:
        if "float" not in weight.dtype:
            continue
        value = keras.ops.convert_to_numpy(weight)
        if value.ndim == 1 or not value.any():
            weight.assign(value + rng.normal(0.0, 0.2, value.shape))


def ragged(lengths: list[int], vocab_size: int = 37, seed: int = 0) -> tuple[Any, Any]:
    """(ids, attention_mask) int32 of right-padded rows; no id of a token is the padding's."""
    rng = np.random.default_rng(seed)
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype("int32")
    return rng.integers(1, vocab_size, mask.shape).astype("int32") * mask, mask


def inputs(made: zoo.TaskModel, lengths: list[int], seed: int = 0) -> dict[str, Any]:
    """Inputs for right-padded rows of `lengths` tokens; the decoder's rows are 3 shorter."""
    ids, mask = ragged(lengths, made.config.vocab_size, seed)
    feeds = {"input_ids": ids, "attention_mask": mask}
    rng = np.random.default_rng(seed + 1)
    if made.config.token_types:
        feeds["token_type_ids"] = rng.integers(0, made.config.token_types, ids.shape) * mask
    if made.architecture == "encoder-decoder":
        width = max(1, ids.shape[1] - 3)
        feeds["decoder_input_ids"] = rng.integers(1, made.config.vocab_size, (len(ids), width))
    return feeds


def targets(made: zoo.TaskModel, feeds: dict[str, Any], seed: int = 2) -> Any:
    """Labels that fit `feeds`, with -100 where a task ignores positions."""
    rng = np.random.default_rng(seed)
    rows, width = feeds["input_ids"].shape
    if made.task == "text-classification":
        return rng.integers(0, len(LABELS), rows)
    if made.task == "question-answering":
        return {name: rng.integers(0, width, rows) for name in made.spec.outputs}
    if made.task in ("feature-extraction", "sentence-similarity"):
        states = made(feeds)[made.spec.outputs[0]]
        return rng.normal(size=states.shape).astype("float32")
    ids = feeds.get("decoder_input_ids", feeds["input_ids"])
    classes = len(made.labels or ()) or made.config.vocab_size
    labels = rng.integers(0, classes, ids.shape)
    mask = np.ones_like(ids) if "decoder_input_ids" in feeds else feeds["attention_mask"]
    return np.where(mask == 1, labels, -100)
