"""Requests of mixed lengths at a decoder of 135 M: one by one, and arriving over time; beside them
CTranslate2's batch of the same, which has them all from the beginning.
"""

from pathlib import Path

from benchmarks.beside import engines
from benchmarks.beside.engines import Engine
from benchmarks.references import work as given
from benchmarks.report import report


def run(work: Path, rounds: int) -> None:
    source = engines.checkpoint("llama-135m", work / "llama")
    engines.export(source, "text-generation", work / "int8-int4", "int8-int4")
    theirs = engines.ctranslate2(source, work / "ct2", "int8")
    ours, ct2 = Engine("ours", work / "int8-int4"), Engine("ctranslate2", theirs)
    column = "tokens/s"
    told = {
        "serve int8-int4, one by one": (ours, {column: "alone"}),
        "serve int8-int4, arriving": (ours, {column: "arriving"}),
        "serve int8-int4, together": (ours, {column: "together"}),
        "CTranslate2 int8, together": (ct2, {column: "together"}),
    }
    rows = engines.turns(told, {column: sum(given.requests()[1])}, rounds)
    arriving = "serve int8-int4, arriving"
    for other in ("serve int8-int4, one by one", "CTranslate2 int8, together"):
        rows.append(engines.ratio(rows, arriving, [other]))
    report(f"{given.REQUESTS} requests, 135 M decoder: new tokens per second and ratios", rows)
