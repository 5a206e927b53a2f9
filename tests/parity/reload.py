"""Loads what the zoo saved with the reference library (parity environment).

The last line of stdout is a JSON object: case -> largest difference, and problems.
"""

import argparse
import dataclasses
import json
import math
import os
import re
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch
import transformers
from safetensors import safe_open

from .cases import Case, all_cases
from .reference import load, values_of

TOLERANCE = 1e-6
UNIMPORTANT = re.compile(
    r"^(architectures|transformers_version|dtype|torch_dtype|_name_or_path|use_cache|model_type)$"
    r"|^_|dropout|drop$|layerdrop|init|aux_loss|jitter|router_logits|pretraining_tp|^summary_"
    r"|^output_|return_dict|chunk_size|problem_type|sparse_pred|flash|slow_but_exact"
)
"""Config entries that leave a forward pass' numbers as they are."""


DERIVED = {
    "n_inner",
    "head_dim",
    "ffn_hidden_size",
    "intermediate_size",
    "num_key_value_heads",
    "num_kv_heads",
    "num_ln_in_parallel_attn",
    "layer_types",
    "partial_rotary_factor",
    "position_embedding_type",
    "sliding_window_pattern",
}
"""Entries that the reference works out where they are absent; writing them out is no change."""
YARN = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True}
SAME_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "swish": "silu"}


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder's safetensors files."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
                tensors[name] = file.get_tensor(name)
    return tensors


def unequal(
    one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], what: str, unused: str
) -> list[str]:
    """Names that only one side has, and those whose values differ in a bit."""

    def shown(names: set[str] | list[str]) -> str:
        return f"{sorted(names)[:4]} ({len(names)} in all)"

    if unused:
        one = {name: value for name, value in one.items() if not re.search(unused, name)}
        other = {name: value for name, value in other.items() if not re.search(unused, name)}
    found = []
    if lost := set(one) - set(other):
        found.append(f"{what}: lost {shown(lost)}")
    if added := set(other) - set(one):
        found.append(f"{what}: added {shown(added)}")
    changed = [
        name
        for name in set(one) & set(other)
        if one[name].shape != other[name].shape
        or not torch.equal(one[name].float(), other[name].float())
    ]
    if changed:
        found.append(f"{what}: changed {shown(changed)}")
    return found


def yarn_factor(facts: dict[str, Any]) -> float:
    """What YaRN multiplies cosines and sines by, given or worked out."""
    if facts.get("attention_factor") is not None:
        return round(facts["attention_factor"], 9)

    def scale(of: float) -> float:
        return 0.1 * of * math.log(facts["factor"]) + 1.0

    if facts.get("mscale") and facts.get("mscale_all_dim"):
        return round(scale(facts["mscale"]) / scale(facts["mscale_all_dim"]), 9)
    return round(scale(1.0), 9)


def plain(value: Any) -> Any:
    """A config value as it is compared: one of the ways to write the same."""
    if isinstance(value, dict) and value.get("rope_type") is not None:
        facts = {key: part for key, part in value.items() if key != "type"}
        if facts.get("partial_rotary_factor") == 1:
            facts.pop("partial_rotary_factor")
        if facts["rope_type"] == "yarn":
            facts = {**YARN, **facts, "attention_factor": yarn_factor(facts)}
            facts = {key: part for key, part in facts.items() if not key.startswith("mscale")}
        if facts["rope_type"] == "dynamic":  # counts from max_position_embeddings
            facts.pop("original_max_position_embeddings", None)
        return {key: part for key, part in facts.items() if part is not None}
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, str):
        return SAME_ACTIVATIONS.get(value, value)
    return None if value is False else value  # an entry that is off may be left out


def settled(config: dict[str, Any]) -> dict[str, Any]:
    """The config with what other entries decide taken out, or worked out."""
    found = dict(config)
    if found.get("layer_types") is not None:
        for name in ("max_window_layers", "sliding_window_pattern"):
            found.pop(name, None)
    if found.get("no_rope_layers") is not None:
        found.pop("no_rope_layer_interval", None)
    if "decoder_sparse_step" in found:
        step, dense = found.pop("decoder_sparse_step"), found.pop("mlp_only_layers") or []
        layers = range(found["num_hidden_layers"])
        found["dense_layers"] = [i for i in layers if i in dense or (i + 1) % step]
    rotary = found.get("rope_parameters")
    if isinstance(rotary, dict) and rotary.get("rope_type") == "longrope":
        whole = found["max_position_embeddings"] / rotary["original_max_position_embeddings"]
        found["rope_parameters"] = {"factor": whole, **rotary}
    return found


def config_problems(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Entries that matter and differ."""
    one, other, found = settled(one), settled(other), []
    for name in sorted(set(one) | set(other)):
        was, now = plain(one.get(name)), plain(other.get(name))
        written_out = was is None and name in DERIVED
        if not UNIMPORTANT.search(name) and was != now and not written_out:
            found.append(f"config {name} = {other.get(name)!r}, was {one.get(name)!r}")
    return found


@torch.no_grad()
def check(case: Case, folder: Path) -> dict[str, Any]:
    """The reference's outputs, weights and config from `ours`, against the original's."""
    ours = folder / "ours"
    written = json.loads((ours / "config.json").read_text())
    architecture = (written.get("architectures") or ["none"])[0]
    if not hasattr(transformers, architecture):
        return {"difference": None, "problems": [f"architectures names {architecture!r}"]}
    problems = []
    if case.task is None and architecture != case.architecture:
        problems.append(f"architectures = [{architecture!r}], was [{case.architecture!r}]")
    model, missing = load(architecture, ours, case.attention)
    original, not_there = load(architecture, folder, case.attention)
    lost = [name for name in missing if name not in not_there]
    if lost := [name for name in lost if not (case.unused and re.search(case.unused, name))]:
        problems.append(f"the reference misses {lost}")
    problems += config_problems(original.config.to_dict(), model.config.to_dict())
    state = dict(model.state_dict())
    problems += unequal(dict(original.state_dict()), state, "weights", case.unused)
    if case.prefixed and not case.stored_as and case.task is None:
        extra = {name for name in case.extra if name not in state} | set(case.copies)
        before = {name: value for name, value in stored(folder).items() if name not in extra}
        problems += unequal(before, stored(ours), "file", case.unused)
    with np.load(folder / "values.npz") as file:
        values = dict(file)
    inputs = {name: v for name, v in values.items() if name.endswith(("_ids", "_mask"))}
    found = values_of(dataclasses.replace(case, architecture=architecture), model, inputs)
    gaps = [float(np.abs(value - values[name]).max()) for name, value in found.items()]
    difference = float(np.max(gaps))
    if not difference <= TOLERANCE:
        problems.append(f"outputs differ by {difference:.3g}")
    return {"difference": difference, "problems": problems}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/parity"))
    parser.add_argument("--only", nargs="*", default=[], help="families or family/case")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    results = {}
    for case in all_cases(tuple(args.only)):
        try:
            results[case.folder] = check(case, args.out / case.folder)
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            results[case.folder] = {"difference": None, "problems": [problem]}
    print(json.dumps(results))
    sys.exit(any(result["problems"] for result in results.values()))


if __name__ == "__main__":
    main()
