"""Translation with the shape of T5-small, greedy and by beams, beside CTranslate2 and Optimum."""

from pathlib import Path

from benchmarks.beside import engines
from benchmarks.beside.engines import REFERENCES, Engine
from benchmarks.references.work import TARGET
from benchmarks.report import report

SHAPES = {
    f"{'greedy' if beams == 1 else f'beam {beams}'}, batch {batch}": (beams, batch)
    for beams in (1, 4)
    for batch in (1, 8)
}
COMMANDS = {name: f"translate {beams} {batch}" for name, (beams, batch) in SHAPES.items()}
TOKENS = {name: batch * TARGET for name, (_, batch) in SHAPES.items()}
KINDS = ("float32", "int8", "int8-int4")


def run(work: Path, rounds: int) -> None:
    source = engines.checkpoint("t5-small", work / "t5")
    for kind in KINDS:
        engines.export(source, "text2text-generation", work / kind, kind)
    engines.prepared(REFERENCES, "optimum-translator", source, work / "optimum")
    found = {f"serve {kind}": Engine("ours", work / kind) for kind in KINDS}
    found["Optimum float32"] = Engine("optimum-translator", work / "optimum")
    found["CTranslate2 int8"] = Engine(
        "ctranslate2-translator", engines.ctranslate2(source, work / "ct2", "int8")
    )
    told = {name: (engine, COMMANDS) for name, engine in found.items()}
    rows = engines.turns(told, TOKENS, rounds)
    for name in ("CTranslate2 int8", "Optimum float32"):
        rows.append(engines.ratio(rows, "serve int8", [name]))
    rows.append(engines.ratio(rows, "serve float32", ["Optimum float32"]))
    report("translation, T5-small: new tokens per second and ratios", rows)
