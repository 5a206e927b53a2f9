"""Loads what the zoo saved with the reference library (parity environment).

The last line of stdout is a JSON object: case -> largest difference, and problems.
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import dataclasses

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


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder's safetensors files."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
                tensors[name] = file.get_tensor(name)
    return tensors


def unequal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], what: str) -> list[str]:
    """Names that only one side has, and those whose values differ in a bit."""
    found = []
    if lost := sorted(set(one) - set(other)):
        found.append(f"{what}: lost {lost[:4]} ({len(lost)} in all)")
    if added := sorted(set(other) - set(one)):
        found.append(f"{what}: added {added[:4]} ({len(added)} in all)")
    changed = [
        name
        for name in sorted(set(one) & set(other))
        if one[name].shape != other[name].shape
        or not torch.equal(one[name].float(), other[name].float())
    ]
    if changed:
        found.append(f"{what}: changed {changed[:4]} ({len(changed)} in all)")
    return found


def config_problems(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    names = sorted(set(one) | set(other))
    return [
        f"config {name} = {other.get(name)!r}, was {one.get(name)!r}"
        for name in names
        if not UNIMPORTANT.search(name) and one.get(name) != other.get(name)
    ]


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
    model, missing = load(architecture, ours)
    original, not_there = load(architecture, folder)
    if lost := sorted(set(missing) - set(not_there)):
        problems.append(f"the reference misses {lost}")
    problems += config_problems(original.config.to_dict(), model.config.to_dict())
    problems += unequal(dict(original.state_dict()), dict(model.state_dict()), "weights")
    if case.prefixed and not case.stored_as and case.task is None:
        before = {
            k: v for k, v in stored(folder).items() if k in model.state_dict() or not case.extra
        }
        problems += unequal(before, stored(ours), "file")
    with np.load(folder / "values.npz") as file:
        values = dict(file)
    inputs = {k: v for k, v in values.items() if "/" not in k and (k.endswith(("_ids", "_mask")))}
    found = values_of(dataclasses.replace(case, architecture=architecture), model, inputs)
    difference = 0.0
    for name, value in found.items():
        difference = max(difference, float(np.abs(value - values[name]).max()))
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
