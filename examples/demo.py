"""The main job from end to end, as a user would type it: train, evaluate, export, verify, answer.

    python examples/demo.py [--out runs/demo]

Every step is a `zoo` command, shown before it runs. A demo that was interrupted goes on where it
stopped.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

QUESTIONS = {
    "le mardi 4 mars 2025": "2025-03-04",
    "4. März 2025": "2025-03-04",
    "2025年3月4日": "2025-03-04",
    "en_US: 3/4/25": "2025-03-04",
    "en_GB: 3/4/25": "2025-04-03",
    "٤ مارس ٢٠٢٥": "2025-03-04",
    "4 марта 2025 г.": "2025-03-04",
    "٤ مارچ ٢٠٢٥": "2025-03-04",  # Urdu, a language that training does not have
    "4 Maart 2025": "2025-03-04",  # Afrikaans, likewise
    "July 14, 2077": "2077-07-14",  # a year beyond those of training
}
"""Texts and their dates; the last three are of kinds that training did not see."""

console = Console(width=100)


def zoo(*arguments: str, capture: bool = False) -> str:
    """Runs `zoo`, shows the command, stops the demo where it fails; returns its output."""
    console.print(f"\n[bold]$ zoo {shlex.join(arguments)}[/bold]", highlight=False)
    command = [sys.executable, "-m", "zoo", *arguments]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE if capture else None, text=True)
    except KeyboardInterrupt:
        sys.exit(130)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout or ""


def timed(*arguments: str) -> float:
    """Seconds that a command took."""
    started = time.perf_counter()
    zoo(*arguments)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    out = parser.parse_args().out
    run, bundle, saved_model = out / "dates", out / "dates.onnx", out / "dates.saved_model"

    started = time.perf_counter()
    resume = ["--resume"] if (run / "recipe.yaml").is_file() else []
    zoo("train", "dates", "--out", str(run), *resume)
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    onnx = timed("export", str(run), "--to", "onnx", "--out", str(bundle), "--overwrite")
    saved = timed(
        "export", str(run), "--to", "saved_model", "--out", str(saved_model), "--overwrite"
    )
    zoo("verify", str(bundle))
    served = json.loads(zoo("evaluate", str(bundle), "--json", capture=True))
    answers = [
        json.loads(line)
        for line in zoo("predict", str(bundle), *QUESTIONS, "--json", capture=True).splitlines()
    ]
    right = show_answers(answers)
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    verified = json.loads((saved_model / "assets.extra" / "verification.json").read_text("utf-8"))
    rows = {
        "training": f"{metrics['training_seconds']:.0f} s, {metrics['updates']} updates",
        "parameters": f"{metrics['parameters']:,}",
        "exact match of held-out dates, Keras": share(metrics["test"]),
        "exact match of held-out dates, ONNX Runtime": share(served),
        "worst locale, ONNX Runtime": worst_group(served),
        "ONNX export": f"{onnx:.0f} s, {megabytes(bundle):.1f} MB, off by at most "
        f"{manifest['verification']['largest']:.1g}",
        "SavedModel export": f"{saved:.0f} s, {megabytes(saved_model):.1f} MB, off by at most "
        f"{verified['largest']:.1g}",
        "answers above": f"{right} of {len(QUESTIONS)} right",
        "learning curves": str(run / "curves.png"),
        "the whole demo": f"{time.perf_counter() - started:.0f} s",
    }
    table = Table(title="measured", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    console.print()
    console.print(table)
    console.print(f"Try it: zoo predict {bundle} 'December 24, 2031'", highlight=False)


def show_answers(answers: list[dict[str, Any]]) -> int:
    """Prints a table of question and answer; returns how many are right."""
    table = Table("written", "answered", "")
    right = 0
    for answer, expected in zip(answers, QUESTIONS.values(), strict=True):
        good = answer["text"] == expected
        right += good
        table.add_row(answer["input"], answer["text"], "" if good else f"expected {expected}")
    console.print(table)
    return right


def share(result: dict[str, Any]) -> str:
    return f"{100 * result['exact_match']:.2f} % of {result['count']:,}"


def worst_group(result: dict[str, Any]) -> str:
    name, scores = min(result["groups"].items(), key=lambda item: item[1]["exact_match"])
    return f"{name}: {share(scores)}"


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    main()
