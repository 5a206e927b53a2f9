"""Has each client open its exports, and prints what it answered (clients' environment).

    .venv-interop/bin/python -m tests.interop.check --out build/interop [--only optimum/bert]

Each client runs in a process of its own, so that one that crashes does not take the others with it.
Writes `interop.json`; its text is the last line of stdout too. Exit code 1 if a case failed.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from .export import FAILED
from .registry import CLIENTS, Case, Found, chosen, client, folder_of

ROOT = Path(__file__).parents[2]


def row(name: str, case: Case, found: Found) -> dict[str, Any]:
    """A line of the table."""
    about = {"client": name, "case": case.name, "task": case.task, "family": case.family}
    return {**about, **dataclasses.asdict(found)}


def judged(name: str, case: Case, out: Path) -> Found:
    """One case's answers, with every problem."""
    folder = folder_of(out, name, case)
    if (folder / FAILED).is_file():
        return Found(problems=[f"export: {(folder / FAILED).read_text().strip()}"])
    if not (folder / "export").exists():
        return Found(problems=[f"{folder / 'export'} is missing: run tests.interop.export"])
    try:
        found = client(name).check(case, folder / "checkpoint", folder / "export")
    except Exception as error:
        traceback.print_exc()
        return Found(problems=[f"{type(error).__name__}: {error}"])
    if found.difference is not None and not found.difference <= found.tolerance:
        found.problems.append(f"differs by {found.difference:.3g}, allowed {found.tolerance:g}")
    if found.tokens is not None and (found.tokens[0] == 0 or found.tokens[0] != found.tokens[1]):
        found.problems.append(f"{found.tokens[1]} of {found.tokens[0]} tokens are equal")
    if found.difference is None and found.tokens is None:
        found.problems.append("nothing was compared")
    return found


def check_client(name: str, cases: list[Case], out: Path) -> list[dict[str, Any]]:
    """The rows of one client, from a process of its own."""
    names = [f"{name}/{case.name}" for case in cases]
    command = [sys.executable, "-m", "tests.interop.check", "--out", str(out), "--inside", name]
    done = subprocess.run(
        [*command, "--only", *names], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    found = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            member = json.loads(line)
            found[member["case"]] = member
    ended = Found(problems=[f"the client's process ended with exit code {done.returncode}"])
    return [found.get(case.name, row(name, case, ended)) for case in cases]


def print_table(rows: list[dict[str, Any]]) -> None:
    """A line for each case; then every problem."""
    titles = ("client", "task", "family", "case", "difference", "tokens equal", "")
    lines = [titles]
    for member in rows:
        gap, tokens = member["difference"], member["tokens"]
        lines.append(
            (
                member["client"],
                member["task"],
                member["family"],
                member["case"],
                "" if gap is None else f"{gap:.1e}",
                "" if tokens is None else f"{tokens[1]}/{tokens[0]}",
                "FAILED" if member["problems"] else "ok",
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(titles))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
    for member in rows:
        for problem in member["problems"]:
            print(f"{member['client']}/{member['case']}: {problem}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/interop"))
    parser.add_argument("--only", nargs="*", default=[], help="clients or client/case")
    parser.add_argument("--inside", choices=list(CLIENTS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    out, began = args.out.resolve(), time.time()
    if args.inside:
        for case in chosen(args.only)[args.inside]:
            member = row(args.inside, case, judged(args.inside, case, out))
            print("\n" + json.dumps(member), flush=True)
        return
    rows = []
    for name, cases in chosen(args.only).items():
        rows += check_client(name, cases, out)
    print_table(rows)
    failed = sum(bool(member["problems"]) for member in rows)
    seconds = round(time.time() - began, 1)
    result = {"cases": len(rows), "failed": failed, "seconds": seconds, "rows": rows}
    if not args.only:
        (out / "interop.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
