"""Requests of mixed lengths at a decoder of 135 M: one by one, and arriving over time; beside them
CTranslate2's batch of the same, which has them all from the beginning.
"""

from pathlib import Path

from benchmarks.beside import engines
from benchmarks.beside.engines import Engine
from benchmarks.references import work as given
from benchmarks.report import report

KINDS = ("int8", "int8-int4")
THEIRS = "CTranslate2 int8, together"
COLUMN = "tokens/s"


def run(work: Path, rounds: int) -> None:
    source = engines.checkpoint("llama-135m", work / "llama")
    told = {}
    for kind in KINDS:
        engines.export(source, "text-generation", work / kind, kind)
        engine = Engine("ours", work / kind)
        told[f"serve {kind}, one by one"] = (engine, {COLUMN: "alone"})
        told[f"serve {kind}, arriving"] = (engine, {COLUMN: "arriving"})
    ct2 = Engine("ctranslate2", engines.ctranslate2(source, work / "ct2", "int8"))
    told[THEIRS] = (ct2, {COLUMN: "together"})
    rows = engines.turns(told, {COLUMN: sum(given.requests()[1])}, rounds)
    for kind in KINDS:
        arriving = f"serve {kind}, arriving"
        for other in (f"serve {kind}, one by one", THEIRS):
            rows.append(engines.ratio(rows, arriving, [other]))
    report(f"{given.REQUESTS} requests, 135 M decoder: new tokens per second and ratios", rows)
