"""The two sizes that benchmarks are about; weights are random, as speed does not depend on them."""

from typing import Any

SIZES: dict[str, dict[str, Any]] = {
    "bert-base": {
        "task": "feature-extraction",
        "config": {
            "vocab_size": 30522,
            "hidden_dim": 768,
            "num_layers": 12,
            "num_heads": 12,
            "token_types": 2,
            "norm_position": "post",
            "norm_epsilon": 1e-12,
            "embedding_norm": True,
        },
    },
    "llama-135m": {
        "task": "text-generation",
        "config": {
            "vocab_size": 49152,
            "hidden_dim": 576,
            "num_layers": 30,
            "num_heads": 9,
            "num_kv_heads": 3,
            "intermediate_dim": 1536,
            "max_length": 2048,
            "norm": "rms",
            "positions": "rotary",
            "activation": "silu",
            "gated": True,
            "attention_bias": False,
            "projection_bias": False,
        },
    },
}


def build(name: str) -> Any:
    """The Keras model of a size."""
    import zoo

    size = SIZES[name]
    cls = zoo.DecoderConfig if size["task"] == "text-generation" else zoo.EncoderConfig
    return zoo.TaskModel(cls(**size["config"]), size["task"])
