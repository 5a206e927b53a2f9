"""Reference values: what Keras computes for chosen inputs, kept in the bundle to be replayed
anywhere.

The inputs have lengths and batch sizes that no trace has seen, with padding on the right, rows of
one token, and for cached graphs whole sequences that prefill and steps must reproduce.
"""

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from export.graphs import Graph, encode_graph, forward_graph
from zoo.tasks import TaskModel

REFERENCE_FILE = "verification.npz"
BUDGET = 1 << 20
"""Most values of one output that are kept."""

TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "Straße, naïve café, ½ — “quotes” … 3/4/25",
    "我们在2024年3月5日见面。",
    "日本語のテキストとカタカナ",
    "مرحبا بالعالم ١٢٣",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "Привет, мир! Ёлка",
    "👩‍👩‍👧 emoji e\u0301 combining",
    "  spaces \t and\nlines  ",
    "a",
)


def reference_values(model: TaskModel, tokenizer: Any, seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays of `verification.npz`; their names are described in `serve.bundle.selfcheck`."""
    rng = np.random.default_rng(seed)
    config: Any = model.config
    arrays: dict[str, np.ndarray] = {}
    for name, lengths in _cases(model).items():
        ids, mask = _rows(rng, lengths, config.vocab_size)
        feeds = {"input_ids": ids, "attention_mask": mask}
        if config.token_types:
            feeds["token_type_ids"] = rng.integers(0, config.token_types, ids.shape) * mask
        if not model.generates:
            _keep_graph(arrays, name, forward_graph(model), feeds)
            continue
        if model.architecture == "encoder-decoder":
            _keep_graph(arrays, name, encode_graph(model), feeds)
            targets = [min(n + 1, config.max_target_length) for n in lengths]
            width = max(targets)
            feeds["decoder_input_ids"] = rng.integers(0, config.vocab_size, (len(lengths), width))
        outputs = forward_graph(model).call(feeds)
        for key, value in (*feeds.items(), ("logits", outputs["logits"])):
            arrays[f"{name}/sequence/{key}"] = np.asarray(value)
    if tokenizer is not None:
        ids = [tokenizer.encode(text).ids for text in TEXTS]
        arrays["tokenizer/texts"] = np.array(json.dumps(TEXTS))
        arrays["tokenizer/ids"] = np.array(json.dumps([[int(i) for i in row] for row in ids]))
    return arrays


def full_passes(
    arrays: Mapping[str, np.ndarray],
) -> Iterator[tuple[str, dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """(case, inputs, outputs) of the whole model without a cache, from `reference_values`."""
    cases: dict[str, dict[str, np.ndarray]] = {}
    for key, value in arrays.items():
        case, rest = key.split("/", 1)
        if case != "tokenizer":
            cases.setdefault(case, {})[rest] = value
    for case, values in cases.items():
        sequence = {
            key.removeprefix("sequence/"): value
            for key, value in values.items()
            if key.startswith("sequence/")
        }
        if sequence:
            yield case, sequence, {"logits": sequence.pop("logits")}
            continue
        sides: dict[str, dict[str, np.ndarray]] = {"inputs": {}, "outputs": {}}
        for key, value in values.items():
            _, side, name = key.split("/")
            sides[side][name] = value
        yield case, sides["inputs"], sides["outputs"]


def save_reference(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes the arrays as an .npz whose bytes depend on the values alone."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _cases(model: TaskModel) -> dict[str, list[int]]:
    """Lengths of each case's rows."""
    config: Any = model.config
    longest = min(config.max_length, getattr(config, "max_target_length", config.max_length))
    scaling = config.rotary_scaling
    if model.generates and scaling is not None and scaling.kind in ("dynamic", "longrope"):
        # Beyond it cached keys stay as they were turned: steps are no longer the full pass.
        longest = min(longest, scaling.original_length)
    wide = (
        config.vocab_size
        if "logits" in model.spec.outputs and not model.labels
        else config.hidden_dim
    )
    room = max(2, min(longest, 37, BUDGET // (3 * wide)))
    return {
        "one-token": [1],
        "one-row": [max(1, room * 2 // 3)],
        "padded-rows": [max(1, room // 2), room, 1],
    }


def _rows(rng: np.random.Generator, lengths: list[int], vocab_size: int) -> tuple[Any, Any]:
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype("int64")
    return rng.integers(0, vocab_size, mask.shape) * mask, mask


def _keep_graph(
    arrays: dict[str, np.ndarray], case: str, graph: Graph, feeds: dict[str, Any]
) -> None:
    """Keeps one run of a graph, with as many outputs as the budget allows."""
    outputs = graph.call(feeds)
    for name, value in feeds.items():
        arrays[f"{case}/{graph.name}/inputs/{name}"] = np.asarray(value)
    kept = 0
    for tensor in graph.outputs:
        value = np.asarray(outputs[tensor.name])
        if kept and kept + value.size > BUDGET:
            break
        kept += value.size
        arrays[f"{case}/{graph.name}/outputs/{tensor.name}"] = value
