"""Engines beside each other: each a process of its own, in an environment of its own, which the
others wait for. They take turns, and figures are medians over the turns.
"""

import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
REFERENCES = Path(os.environ.get("ZOO_REFERENCES", ROOT / ".venv-interop"))
BUILDER = Path(os.environ.get("ZOO_GENAI_BUILDER", ROOT / ".venv-parity"))
PREPARE = ROOT / "benchmarks" / "references" / "prepare.py"


class Engine:
    """A worker that waits for commands.

    Args:
        kind: A name in `benchmarks.references.worker.ENGINES`.
        folder: The model, in the engine's form.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        ours = kind.startswith("ours")
        self.name = f"{kind} with {folder.name}"
        self.process = subprocess.Popen(
            [
                sys.executable if ours else str(REFERENCES / "bin" / "python"),
                "-m",
                "benchmarks.references.worker",
                kind,
                str(folder),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        if self._answer() != "ready":
            raise SystemExit(f"{self.name} does not start")

    def seconds(self, command: str) -> float:
        """Seconds that a command took in the worker."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        if not answer:
            raise SystemExit(f"{self.name} ended at {command!r}")
        return float(answer)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def turns(
    engines: Mapping[str, tuple[Engine, Mapping[str, str]]],
    tokens: Mapping[str, int],
    rounds: int,
) -> list[dict[str, Any]]:
    """Median tokens per second.

    Args:
        engines: By the name of a row, an engine, and by the name of a column what it is told.
        tokens: By the name of a column, the tokens of its work.
        rounds: Turns that count; one before them warms up.

    Returns:
        A row for each engine, and closes the engines.
    """
    times: dict[tuple[str, str], list[float]] = {}
    for turn in range(rounds + 1):
        for name, (engine, commands) in engines.items():
            for column, command in commands.items():
                seconds = engine.seconds(command)
                if turn:
                    times.setdefault((name, column), []).append(seconds)
    for engine in {engine for engine, _ in engines.values()}:
        engine.close()
    return [
        {"engine": name}
        | {column: tokens[column] / statistics.median(times[name, column]) for column in commands}
        for name, (_, commands) in engines.items()
    ]


def alike(engines: Mapping[str, Engine], columns: Sequence[str]) -> dict[str, Any]:
    """Engines that are all told what the columns are called."""
    return {name: (engine, {c: c for c in columns}) for name, engine in engines.items()}


def ratio(rows: Sequence[dict[str, Any]], ours: str, theirs: Sequence[str]) -> dict[str, Any]:
    """A row of how many times the best of `theirs` one of ours is, where both have a figure."""
    rates = {row["engine"]: row for row in rows}
    found: dict[str, Any] = {"engine": f"{ours} / {' or '.join(theirs)}"}
    for column, rate in rates[ours].items():
        others = [rates[name][column] for name in theirs if column in rates[name]]
        if column != "engine" and others:
            found[column] = rate / max(others)
    return found


def prepared(env: Path, form: str, *words: Any, packages: Path | None = None) -> str:
    """Makes a reference's form of a checkpoint in its environment; the last line it prints."""
    found = subprocess.run(
        [str(env / "bin" / "python"), str(PREPARE), form, *map(str, words)],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(packages or "")},
    )
    return (found.stdout.splitlines() or [""])[-1]


def ctranslate2(checkpoint: Path, out: Path, kind: str) -> Path:
    """CTranslate2's form of a checkpoint."""
    command = [str(REFERENCES / "bin" / "ct2-transformers-converter"), "--model", str(checkpoint)]
    command += ["--output_dir", str(out), "--quantization", kind]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return out


def checkpoint(size: str, folder: Path, circling: int = 0) -> Path:
    """A Hugging Face folder of a size; arguments as for `benchmarks.sizes.save`."""
    code = "import sys; from benchmarks.sizes import save; save(*sys.argv[1:3], int(sys.argv[3]))"
    words = [size, str(folder), str(circling)]
    subprocess.run([sys.executable, "-c", code, *words], check=True, cwd=ROOT)
    return folder


def export(checkpoint: Path, task: str, out: Path, precision: str) -> float:
    """Exports with this project in a process of its own; the seconds of the export itself."""
    code = (
        "import sys, time, zoo, export.bundle\n"
        "model = zoo.from_pretrained(sys.argv[1], task=sys.argv[2])\n"
        "started = time.perf_counter()\n"
        "export.to_onnx(model, sys.argv[3], precision=sys.argv[4], verify=False)\n"
        "print(time.perf_counter() - started)"
    )
    words = [str(checkpoint), task, str(out), precision]
    found = subprocess.run(
        [sys.executable, "-c", code, *words],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    return float(found.stdout.splitlines()[-1])
