"""The sizes that benchmarks are about; weights are random, as speed does not depend on them."""

from typing import Any

import numpy as np

SIZES: dict[str, dict[str, Any]] = {
    "bert-base": {
        "task": "feature-extraction",
        "model_type": "bert",
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
        "model_type": "llama",
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
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    },
    "t5-small": {
        "task": "text2text-generation",
        "model_type": "t5",
        "config": {
            "vocab_size": 32128,
            "hidden_dim": 512,
            "num_layers": 6,
            "num_decoder_layers": 6,
            "num_heads": 8,
            "head_dim": 64,
            "intermediate_dim": 2048,
            "max_length": 512,
            "norm": "rms",
            "norm_epsilon": 1e-6,
            "positions": "none",
            "position_bias": "relative",
            "relative_buckets": 32,
            "relative_max_distance": 128,
            "attention_scale": 1.0,
            "activation": "relu",
            "attention_bias": False,
            "projection_bias": False,
            "logit_scale": 512**-0.5,
            "tie_embeddings": True,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "decoder_start_token_id": 0,
        },
    },
}


ROLES = ("pad_token", "bos_token", "eos_token", "unk_token", "mask_token")


def build(name: str, **facts: Any) -> Any:
    """The Keras model of a size; `facts` of its config may be others."""
    import zoo

    size = SIZES[name]
    names = {"text-generation": "DecoderConfig", "text2text-generation": "EncoderDecoderConfig"}
    cls = getattr(zoo, names.get(size["task"], "EncoderConfig"))
    return zoo.TaskModel(cls(**{**size["config"], **facts}), size["task"])


def circle(model: Any, period: int) -> None:
    """Gives a decoder weights with which it writes token t + 1 behind token t, and, behind the last
    of `period` tokens, their first: a text that repeats itself.

    The states are little more than the newest token's embedding, which is what the head has for the
    token behind it. Speed does not depend on any of it.
    """
    table = model.decoder.embeddings.tokens.table
    values = np.random.default_rng(0).normal(0.0, 50.0, table.shape).astype("float32")
    table.assign(values)
    tokens = np.arange(len(values))
    before = tokens - 1 + period * (tokens % period == 0)
    model.head.kernel.kernel.assign(values[np.minimum(before, tokens[-1])].T / 50.0)


def save(name: str, folder: str, circling: int = 0) -> None:
    """Writes a size as a Hugging Face folder, with a tokenizer that has a word for every row.

    Args:
        name: The size.
        folder: The folder to make.
        circling: See `circle`; 0 for weights that mean nothing.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    import zoo

    size = SIZES[name]["config"]["vocab_size"]
    roles = dict(zip(ROLES, ("[PAD]", "<s>", "</s>", "[UNK]", "[MASK]"), strict=True))
    words = [*roles.values(), *(f"w{i}" for i in range(len(roles), size))]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=roles["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    model = build(name, **({"tie_embeddings": False} if circling else {}))
    if circling:
        circle(model, circling)
    model.tokenizer = zoo.Tokenizer(tokenizer, roles)
    model.save_pretrained(folder, model_type=SIZES[name]["model_type"])
