"""This project beside Optimum, CTranslate2 and onnxruntime-genai: the same weights, one run.

    python -m benchmarks.versus [encode | decode] [--rounds N]

Every engine is a process of its own, which the others wait for: they take turns, and the ratios are
of medians over the turns. `make versus` sets up the references' environments first.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.report import report

ROOT = Path(__file__).parents[1]
REFERENCES = Path(os.environ.get("ZOO_REFERENCES", ROOT / ".venv-interop"))
BUILDER = Path(os.environ.get("ZOO_GENAI_BUILDER", ROOT / ".venv-parity"))
BUILDER_PACKAGES = BUILDER / "genai"
HERE = ROOT / "benchmarks" / "references"

ENCODE = ("encode 1 128", "encode 8 128", "encode 16 32")
DECODE = ("prefill 128", "decode 64")
TOKENS = {"encode 1 128": 128, "encode 8 128": 1024, "encode 16 32": 512}
TOKENS |= {"prefill 128": 128, "decode 64": 64}


class Engine:
    """A worker that waits for commands."""

    def __init__(self, kind: str, folder: Path) -> None:
        python = sys.executable if kind == "serve" else str(REFERENCES / "bin" / "python")
        path = {"PYTHONPATH": str(ROOT)} if kind == "serve" else {}
        self.process = subprocess.Popen(
            [python, str(HERE / "worker.py"), kind, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **path},
        )
        if self._answer() != "ready":
            raise SystemExit(f"{kind} does not start with {folder}")

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def seconds(self, command: str) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def turns(engines: dict[str, Engine], commands: tuple[str, ...], rounds: int) -> list[dict]:
    """Median tokens per second of every engine and command."""
    times: dict[tuple[str, str], list[float]] = {}
    for turn in range(rounds + 1):
        for name, engine in engines.items():
            for command in commands:
                seconds = engine.seconds(command)
                if turn:  # the first one warms up
                    times.setdefault((name, command), []).append(seconds)
    for engine in engines.values():
        engine.close()
    return [
        {"engine": name} | {c: TOKENS[c] / statistics.median(times[name, c]) for c in commands}
        for name in engines
    ]


def script(env: Path, name: str, *words: Any, packages: Path | None = None) -> str:
    """Runs one of the references' preparations in its environment; its last line."""
    found = subprocess.run(
        [str(env / "bin" / "python"), str(HERE / "prepare.py"), name, *map(str, words)],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(packages or "")},
    )
    return (found.stdout.splitlines() or [""])[-1]


def converter(checkpoint: Path, out: Path, kind: str) -> None:
    command = [str(REFERENCES / "bin" / "ct2-transformers-converter"), "--model", str(checkpoint)]
    command += ["--output_dir", str(out), "--quantization", kind]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def checkpoint(size: str, folder: Path) -> Path:
    """A Hugging Face folder of a size, with a tokenizer of as many words as the model has rows."""
    code = "import sys; from benchmarks.sizes import save; save(sys.argv[1], sys.argv[2])"
    subprocess.run([sys.executable, "-c", code, size, str(folder)], check=True, cwd=ROOT)
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


def encode(work: Path, rounds: int) -> None:
    source = checkpoint("bert-base", work / "bert")
    seconds = [export(source, "feature-extraction", work / "float32", "float32")]
    export(source, "feature-extraction", work / "int8", "int8")
    theirs = [float(script(REFERENCES, "optimum", source, work / "optimum"))]
    script(REFERENCES, "optimum-int8", work / "optimum", work / "optimum-int8")
    converter(source, work / "ct2", "int8")
    engines = {
        "serve float32": Engine("serve", work / "float32"),
        "Optimum float32": Engine("optimum", work / "optimum"),
        "serve int8": Engine("serve", work / "int8"),
        "Optimum int8": Engine("optimum", work / "optimum-int8"),
        "CTranslate2 int8": Engine("ctranslate2-encoder", work / "ct2"),
    }
    rows = turns(engines, ENCODE, rounds)
    rates = {row["engine"]: row for row in rows}
    ratios = []
    for ours, best in (
        ("serve float32", ("Optimum float32",)),
        ("serve int8", ("Optimum int8", "CTranslate2 int8")),
    ):
        ratios.append(
            {"engine": f"{ours} / best of {', '.join(best)}"}
            | {c: rates[ours][c] / max(rates[name][c] for name in best) for c in ENCODE}
        )
    report("encode, BERT-base: tokens per second and ratios", rows + ratios)
    report(
        "export of BERT-base, float32: seconds",
        [{"this project": seconds[0], "Optimum": theirs[0], "ratio": seconds[0] / theirs[0]}],
    )


def decode(work: Path, rounds: int) -> None:
    source = checkpoint("llama-135m", work / "llama")
    kinds = ("float32", "int8", "int4", "int8-int4")
    for kind in kinds:
        export(source, "text-generation", work / kind, kind)
    script(BUILDER, "genai-int4", source, work / "genai", packages=BUILDER_PACKAGES)
    converter(source, work / "ct2", "int8")
    engines = {f"serve {kind}": Engine("serve", work / kind) for kind in kinds}
    engines["onnxruntime-genai int4"] = Engine("genai", work / "genai")
    engines["CTranslate2 int8"] = Engine("ctranslate2-decoder", work / "ct2")
    rows = turns(engines, DECODE, rounds)
    rates = {row["engine"]: row for row in rows}
    ours = rates["serve int8-int4"]
    for name in ("onnxruntime-genai int4", "CTranslate2 int8"):
        rows.append(
            {"engine": f"serve int8-int4 / {name}"} | {c: ours[c] / rates[name][c] for c in DECODE}
        )
    report("135 M decoder: tokens per second and ratios", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", nargs="?", choices=["encode", "decode"], default=None)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    for name, run in (("encode", encode), ("decode", decode)):
        if options.work in (None, name):
            with tempfile.TemporaryDirectory(prefix="zoo-versus-") as folder:
                run(Path(folder), options.rounds)


if __name__ == "__main__":
    main()
