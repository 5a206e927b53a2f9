"""Exports every family and task, for both ONNX targets and as a SavedModel, each verified.

    python -m tests.parity.bundles --out build/parity [--only llama t5] [--jobs 2]

takes the reference's folders (`tests.parity.reference`). Last line of stdout: one JSON object. Exit
code 1 if an export failed.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from rich.console import Console
from rich.table import Table

from .cases import Case, all_cases
from .compare import described

FORMS = ("onnxruntime", "portable", "saved_model")


def chosen(only: tuple[str, ...]) -> Iterator[Case]:
    """One case for each family and class of the reference; all that `only` names by case."""
    seen = set()
    for case in all_cases(only):
        key = (case.model_type, case.architecture, case.task)
        if key not in seen or case.folder in only:
            seen.add(key)
            yield case


def export(case: Case, out: Path) -> dict[str, Any] | None:
    """Exports one case to every form; each form's largest difference, or what went wrong. None for
    a case that the zoo may refuse, and does.
    """
    import zoo
    from zoo.quiet import start_tensorflow

    start_tensorflow()
    from export import to_onnx, to_saved_model

    row: dict[str, Any] = {"family": case.model_type, "case": case.name, "problems": []}
    try:
        model = zoo.from_pretrained(out / case.folder, task=case.task, dtype="float32")
    except zoo.ZooError as error:
        if not case.required:
            return None
        return {**row, "task": "", "problems": [f"loading: {described(error)}"]}
    row["task"] = model.task
    with tempfile.TemporaryDirectory() as folder:
        for form in FORMS:
            try:
                if form == "saved_model":
                    report = to_saved_model(model, Path(folder) / form)
                else:
                    report = to_onnx(model, Path(folder) / form, target=form).verification
                row[form] = float(report["largest"])
            except Exception as error:
                row["problems"].append(f"{form}: {described(error)}"[:600])
    return row


def print_table(rows: list[dict[str, Any]]) -> None:
    """A line for each family, its tasks and the largest difference of each form."""
    table = Table()
    for title in ("family", "tasks", *FORMS):
        table.add_column(title, overflow="fold")
    for name, members in _by_family(rows).items():
        figures = []
        for form in FORMS:
            found = [row[form] for row in members if form in row]
            bad = len(members) - len(found)
            figure = f"{max(found):.1e}" if found else ""
            figures.append(f"[red]{figure} {bad} failed[/]" if bad else figure)
        table.add_row(name, ", ".join(dict.fromkeys(row["task"] for row in members)), *figures)
    console = Console(width=150)
    console.print(table)
    for row in rows:
        for problem in row["problems"]:
            console.print(f"{row['family']}/{row['case']}: {problem}", markup=False, soft_wrap=True)


def _by_family(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    families: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        families.setdefault(row["family"], []).append(row)
    return families


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Each family's tasks and largest differences, and how many exports failed."""
    families = {}
    for name, members in _by_family(rows).items():
        families[name] = {
            "tasks": list(dict.fromkeys(row["task"] for row in members)),
            **{
                form: max(row[form] for row in members)
                for form in FORMS
                if all(form in row for row in members)
            },
        }
    failed = sum(len(row["problems"]) for row in rows)
    return {"exports": len(rows) * len(FORMS), "failed": failed, "families": families}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/parity"))
    parser.add_argument("--only", nargs="*", default=[], help="families or family/case")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    args = parser.parse_args()
    out = args.out.resolve()
    cases, began = list(chosen(tuple(args.only))), time.time()
    if args.jobs == 1:
        found = [export(case, out) for case in cases]
    else:
        with ProcessPoolExecutor(args.jobs, get_context("spawn")) as pool:
            found = list(pool.map(export, cases, [out] * len(cases), chunksize=4))
    rows = [row for row in found if row is not None]
    print_table(rows)
    result = {**summary(rows), "seconds": round(time.time() - began, 1)}
    if not args.only:
        (out / "bundles.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    sys.exit(bool(result["failed"]))


if __name__ == "__main__":
    main()
