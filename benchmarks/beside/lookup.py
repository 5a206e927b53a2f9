"""Prompt look-up on a text that repeats itself, beside plain decoding of the same."""

from pathlib import Path

from benchmarks.beside import engines
from benchmarks.beside.engines import Engine
from benchmarks.references.work import PERIOD
from benchmarks.report import report

NEW = 96
AHEAD = (4, 8)
KINDS = ("float32", "int8-int4")


def run(work: Path, rounds: int) -> None:
    source = engines.checkpoint("llama-135m", work / "llama", circling=PERIOD)
    told = {}
    column = "tokens/s"
    for kind in KINDS:
        engines.export(source, "text-generation", work / kind, kind)
        engine = Engine("ours", work / kind)
        told[f"serve {kind}"] = (engine, {column: f"circle 0 {NEW}"})
        for ahead in AHEAD:
            told[f"serve {kind}, look-up {ahead}"] = (engine, {column: f"circle {ahead} {NEW}"})
    rows = engines.turns(told, {column: NEW}, rounds)
    for kind in KINDS:
        for ahead in AHEAD:
            plain, ours = f"serve {kind}", f"serve {kind}, look-up {ahead}"
            rows.append(engines.ratio(rows, ours, [plain]))
    report("prompt look-up, 135 M decoder: new tokens per second and ratios", rows)
