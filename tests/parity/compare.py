"""Compares the zoo with the reference's folders, and has the reference read what the zoo saves.

    python -m tests.parity.compare --out build/parity [--only llama t5/v1.1]

Last line of stdout: one JSON object. Exit code 1 if a case failed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np

from .cases import Case, all_cases
from .measure import TOLERANCE, measure
from .table import print_table, summary

ROOT = Path(__file__).parents[2]
REFERENCE_PYTHON = ROOT / ".venv-parity" / "bin" / "python"
CACHED = ("cached_buffer", "cached_grow")


def has_family(model_type: str) -> bool:
    """Whether the zoo has a module for the model_type."""
    return (ROOT / "zoo" / "families" / f"{model_type.replace('-', '_')}.py").is_file()


def compare(case: Case, folder: Path) -> dict[str, Any]:
    """Loads the folder, measures, saves beside it; what went wrong is in `problems`."""
    import zoo
    from zoo.quiet import start_tensorflow

    start_tensorflow()
    row: dict[str, Any] = {"family": case.model_type, "case": case.name, "problems": []}
    began = time.perf_counter()
    try:
        model = zoo.from_pretrained(folder, task=case.task, dtype="float32")
    except Exception as error:
        if not has_family(case.model_type):
            return {**row, "state": "not supported yet"}
        if not case.required and isinstance(error, zoo.ZooError):
            return {**row, "state": "refused", "refusal": str(error)}
        return {**row, "state": "failed", "problems": [f"loading: {described(error)}"]}
    with np.load(folder / "values.npz") as stored:
        values = dict(stored)
    try:
        row.update(measure(model, case, values))
    except Exception as error:
        row["problems"].append(f"computing: {described(error)}")
    for point in ("embeddings", "first_layer", "output", *CACHED):
        if point in row and not row[point] <= TOLERANCE:  # NaN is a failure too
            row["problems"].append(f"{point} differs by {row[point]:.3g}")
    if row.get("greedy") is False:
        row["problems"].append("greedy tokens differ")
    try:
        model.save_pretrained(folder / "ours")
    except Exception as error:
        row["problems"].append(f"saving: {described(error)}")
    row["seconds"] = round(time.perf_counter() - began, 2)
    return {**row, "state": "failed" if row["problems"] else "ok"}


def described(error: Exception) -> str:
    """The error, and where in the zoo it came from if it was not raised on purpose."""
    import zoo

    text = f"{type(error).__name__}: {error}"
    if isinstance(error, zoo.ZooError | AssertionError):
        return text
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/zoo/" in f.filename]
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return text + where


def read_back(rows: list[dict[str, Any]], out: Path, python: Path) -> None:
    """Has the reference load every `ours`, and adds what it says to the rows."""
    names = [f"{row['family']}/{row['case']}" for row in rows if "seconds" in row]
    names = [name for name in names if (out / name / "ours").is_dir()]
    if not names:
        return
    command = [str(python), "-m", "tests.parity.reload", "--out", str(out), "--only", *names]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 1) or not done.stdout.strip():
        raise SystemExit(f"the reference could not read what was saved (exit {done.returncode})")
    found = json.loads(done.stdout.splitlines()[-1])
    for row in rows:
        said = found.get(f"{row['family']}/{row['case']}")
        if said is not None:
            row["reload"] = said["difference"]
            row["reloaded"] = not said["problems"]
            row["problems"] += [f"read back: {problem}" for problem in said["problems"]]
            row["state"] = "failed" if row["problems"] else row["state"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/parity"))
    parser.add_argument("--only", nargs="*", default=[], help="families or family/case")
    parser.add_argument("--python", type=Path, default=REFERENCE_PYTHON, help="the reference's")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    args = parser.parse_args()
    out = args.out.resolve()
    if not args.python.is_file():
        raise SystemExit(f"{args.python} is missing: run `make parity`, which sets it up")
    cases, began = all_cases(tuple(args.only)), time.time()
    folders = [out / case.folder for case in cases]
    missing = [folder for folder in folders if not (folder / "values.npz").is_file()]
    if missing:
        raise SystemExit(f"{missing[0]} is missing: run tests.parity.reference --out {args.out}")
    if args.jobs == 1:
        rows = list(map(compare, cases, folders))
    else:
        with ProcessPoolExecutor(args.jobs, get_context("spawn")) as pool:
            rows = list(pool.map(compare, cases, folders, chunksize=4))
    read_back(rows, out, args.python)
    print_table(rows, by_case=bool(args.only))
    found = {**summary(rows), "seconds": round(time.time() - began, 1)}
    if not args.only:
        (out / "parity.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))
    sys.exit(any(row["state"] == "failed" for row in rows))


if __name__ == "__main__":
    main()
