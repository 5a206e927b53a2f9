"""How far a model of the zoo is from a case's values; needs the zoo, not the reference."""

from collections.abc import Mapping
from typing import Any

import numpy as np

Values = Mapping[str, np.ndarray]

TOLERANCE = 1e-4
"""Largest absolute difference allowed in float32; the table states the measured one."""


def gap(found: Any, expected: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Largest absolute difference over the valid positions [B, T]; NaN where either has one."""
    found = np.asarray(found, "float32")
    if found.shape != expected.shape:
        raise AssertionError(f"shape {found.shape}, expected {expected.shape}")
    difference = np.abs(found - expected)
    return float((difference if valid is None else difference[valid]).max(initial=0.0))


def measure(
    model: Any, case: Any, values: Values, steps: int = 4, tokens: int | None = None
) -> dict[str, Any]:
    """Every comparison that the case asks for: name -> largest difference, and `greedy` -> whether
    the tokens are equal.

    Args:
        model: A `TaskModel`.
        case: What is asked for.
        values: The reference's.
        steps: Most cached steps behind a prompt.
        tokens: Most greedy tokens; None: as many as the reference made.
    """
    feeds = {
        name: np.asarray(values[name], "int32")
        for name in ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids")
        if name in values
    }
    found = points(model, feeds, values)
    generates = model.task.endswith("generation")
    if generates and case.cached:
        found["cached_buffer"] = cached(model, feeds, values, "buffer", steps)
        found["cached_grow"] = cached(model, feeds, values, "grow", steps)
    if generates and "greedy" in values:
        found["greedy"] = greedy_equal(model, feeds, values["greedy"][:, :tokens])
    return found


def points(model: Any, feeds: Values, values: Values) -> dict[str, float]:
    """The differences behind the embeddings, behind the first layer, and of the outputs."""
    ids, mask = feeds["input_ids"], feeds["attention_mask"]
    valid = mask.astype(bool)
    target_valid = values["decoder_mask"].astype(bool) if "decoder_mask" in values else valid
    prefix = "encoder_" if "encoder_embeddings" in values else ""
    trails: dict[str, list[Any]] = {prefix: []}
    if model.encoder is not None:
        states, _, _ = model.encoder.call(
            ids,
            attention_mask=mask,
            token_type_ids=feeds.get("token_type_ids"),
            trail=trails[prefix].append,
        )
    if model.task == "text2text-generation":
        trails[""] = []
        model.decoder.call(
            feeds["decoder_input_ids"],
            memory=model.decoder.project_memory(states),
            memory_attention_mask=mask,
            trail=trails[""].append,
        )
    elif model.encoder is None:
        model.decoder.call(ids, attention_mask=mask, trail=trails[""].append)
    found = {"embeddings": 0.0, "first_layer": 0.0, "output": 0.0}
    for name, trail in trails.items():
        where = target_valid if name == "" else valid
        for i, point in enumerate(("embeddings", "first_layer")):
            difference = gap(trail[i], values[name + point], where)
            found[point] = worse(found[point], difference)
    outputs = model(feeds)
    expected = {k.removeprefix("output/"): v for k, v in values.items() if k.startswith("output/")}
    if set(outputs) != set(expected):
        raise AssertionError(f"outputs {sorted(outputs)}, expected {sorted(expected)}")
    for name, value in expected.items():
        where = target_valid if value.shape[:2] == target_valid.shape else None
        found["output"] = worse(found["output"], gap(outputs[name], value, where))
    return found


def worse(one: float, other: float) -> float:
    """The larger; NaN if either is."""
    return float(np.maximum(one, other))


def cached(model: Any, feeds: Values, values: Values, layout: str, most: int) -> float:
    """Difference of cached logits from the reference's full pass: the first half of each row or
    more at once (left padded where the cache grows), then at most `most` tokens one by one; rows
    end at different steps.
    """
    prefix = "decoder_" if "decoder_input_ids" in feeds else ""
    ids = feeds[f"{prefix}input_ids"]
    lengths = values["decoder_mask" if prefix else "attention_mask"].sum(axis=1)
    expected = values["output/logits"]
    memory: tuple[Any, ...] = ()
    if prefix:
        source_mask = feeds["attention_mask"]
        memory = (model.encode(feeds["input_ids"], source_mask)[1], source_mask)
    prompts = np.maximum((lengths + 1) // 2, lengths - most)
    width, steps = int(prompts.max()), int((lengths - prompts).max())
    rows, columns = np.arange(len(ids)), np.arange(width)[None, :]
    shift = 0 if layout == "buffer" else (width - prompts)[:, None]
    mask = ((columns >= shift) & (columns - shift < prompts[:, None])).astype("int32")
    source = np.clip(columns - shift, 0, ids.shape[1] - 1)
    new = np.take_along_axis(ids, source, axis=1) * mask
    given, counts = mask, prompts
    if layout == "buffer":
        given = np.pad(mask, ((0, 0), (0, steps)))
    logits, past = model.step(new, given, None, layout, *memory, keep=lambda states, span: states)
    worst = gap(np.asarray(logits)[mask == 1], expected[rows[:, None], source][mask == 1])
    slots = np.arange(width + steps)[None, :]
    for _ in range(steps):
        alive = counts < lengths
        at = np.minimum(counts, ids.shape[1] - 1)
        new = (ids[rows, at] * alive)[:, None]
        if layout == "buffer":
            counts = counts + 1
            given = (slots < counts[:, None]).astype("int32")
        else:
            counts = counts + alive
            given = np.concatenate([given, alive[:, None].astype("int32")], axis=1)
        logits, past = model.step(new, given, past, layout, *memory)
        worst = worse(worst, gap(np.asarray(logits)[alive, 0], expected[rows, at][alive]))
    return worst


def greedy_equal(model: Any, feeds: Values, expected: np.ndarray) -> bool:
    """Whether a batch of prompts of different lengths gets each row's own greedy tokens."""
    tokens = np.asarray(
        model.generate(
            feeds["input_ids"], feeds["attention_mask"], max_new_tokens=expected.shape[1]
        )
    )
    wanted = expected[:, : tokens.shape[1]]
    finished = bool(np.all(expected[:, tokens.shape[1] :] == -1))
    return finished and bool(np.all((tokens == wanted) | (wanted == -1)))
