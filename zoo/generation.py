"""Generation in Keras, with the explicit cache: the reference that exported graphs are compared
with.
"""

from typing import Any

import numpy as np
from keras import ops as kops

from zoo.errors import ConfigError
from zoo.graph import as_graph


def generate(
    model: Any,
    input_ids: Any,
    attention_mask: Any = None,
    *,
    max_new_tokens: int = 32,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
) -> np.ndarray:
    """Continues `input_ids` (decoder) or answers them (encoder-decoder), greedily or by sampling.

    Args:
        model: A `TaskModel` of text-generation or text2text-generation.
        input_ids: [B, T] token ids, right padded.
        attention_mask: [B, T] 1 for tokens; None: all are.
        max_new_tokens: Most new tokens of a row.
        do_sample: Draw from the distribution instead of taking the most likely token.
        temperature: Divides the logits.
        top_k: Draw from the k most likely tokens.
        top_p: Draw from the most likely tokens that hold this much probability.
        seed: Makes the draws reproducible.

    Returns:
        int32 [B, N] new tokens, N <= max_new_tokens; padding follows a row's end token.

    Raises:
        ConfigError: The task cannot generate, or prompt and new tokens exceed the model's length.
    """
    if not model.generates:
        raise ConfigError(f"task {model.task!r} does not generate text")
    if max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens = {max_new_tokens}: it must be positive")
    ids = np.asarray(input_ids, "int32")
    mask = np.ones_like(ids) if attention_mask is None else np.asarray(attention_mask, "int32")
    config = model.config
    rng = np.random.default_rng(seed)
    constants: tuple[Any, ...] = ()
    if model.encoder is not None:
        constants = (_compiled(model, "encode")(ids, mask)[1], mask)
        start = np.full((len(ids), 1), config.decoder_start_token_id, "int32")
        prompt, lengths = start, np.ones(len(ids), "int32")
        longest = config.max_target_length
    else:
        prompt, lengths, longest = ids, mask.sum(axis=1).astype("int32"), config.max_length
    capacity = prompt.shape[1] + max_new_tokens
    if capacity > longest:
        raise ConfigError(
            f"{prompt.shape[1]} prompt and {max_new_tokens} new tokens exceed the model's length "
            f"of {longest}"
        )
    step = _compiled(model, "step")
    slots = np.arange(capacity)[None, :]
    past, new = _empty_cache(model, len(ids), capacity), prompt
    finished = np.zeros(len(ids), bool)
    out = []
    for _ in range(max_new_tokens):
        valid = (slots < lengths[:, None]).astype("int32")
        logits, past = step(new, valid, past, *constants)
        scores = np.asarray(kops.convert_to_numpy(logits))[:, -1]
        token = _choose(scores, rng if do_sample else None, temperature, top_k, top_p)
        token = np.where(finished, config.pad_token_id, token).astype("int32")
        out.append(token)
        ends = {config.eos_token_id, *config.stop_token_ids} - {None}
        finished |= np.isin(token, list(ends))
        if finished.all():
            break
        new, lengths = token[:, None], lengths + 1
    return np.stack(out, axis=1)


def _choose(
    logits: np.ndarray,
    rng: np.random.Generator | None,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
) -> np.ndarray:
    """One token per row of `logits` [B, V]: the best, or drawn where `rng` is given."""
    if rng is None:
        return logits.argmax(axis=-1)
    logits = logits.astype("float64") / max(temperature, 1e-6)
    order = np.argsort(-logits, axis=-1)
    ranked = np.take_along_axis(logits, order, axis=-1)
    weights = np.exp(ranked - ranked[:, :1])
    weights /= weights.sum(axis=-1, keepdims=True)
    if top_k is not None:
        weights[:, top_k:] = 0
    if top_p is not None:
        weights[np.cumsum(weights, axis=-1) - weights >= top_p] = 0
    cumulative = np.cumsum(weights, axis=-1)
    draws = rng.random((len(logits), 1)) * cumulative[:, -1:]
    rank = (cumulative <= draws).sum(axis=-1).clip(max=logits.shape[-1] - 1)
    return np.take_along_axis(order, rank[:, None], axis=-1)[:, 0]


def _empty_cache(model: Any, batch: int, capacity: int) -> list[tuple[Any, Any]]:
    """Zeros for every layer's keys and values: [batch, kv_heads, capacity, head_dim] each."""
    config = model.decoder.config
    shape = (batch, config.num_kv_heads, capacity, config.head_dim)
    zeros = kops.zeros(shape, model.compute_dtype)
    return [(zeros, zeros)] * len(model.decoder.layers)


def _compiled(model: Any, name: str) -> Any:
    """`model.encode` or a cached step as a compiled function, traced once for all shapes."""
    functions = model.__dict__.setdefault("_generation_functions", {})
    if name not in functions:
        config, ids = model.decoder.config, ((None, None), "int32")
        cache = ((None, config.num_kv_heads, None, config.head_dim), model.compute_dtype)
        layers = [(cache, cache)] * len(model.decoder.layers)
        if name == "encode":
            functions[name] = as_graph(model.encode, [ids, ids])
        elif model.encoder is None:

            def step(new: Any, mask: Any, past: Any) -> Any:
                return model.step(new, mask, past, "buffer")

            functions[name] = as_graph(step, [ids, ids, layers])
        else:

            def cross_step(new: Any, mask: Any, past: Any, memory: Any, memory_mask: Any) -> Any:
                return model.step(new, mask, past, "buffer", memory, memory_mask)

            functions[name] = as_graph(cross_step, [ids, ids, layers, layers, ids])
    return functions[name]
