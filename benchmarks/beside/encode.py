"""Encoding with the shape of BERT-base, beside Optimum and CTranslate2; and its export."""

from pathlib import Path

from benchmarks.beside import engines
from benchmarks.beside.engines import REFERENCES, Engine
from benchmarks.report import report

TOKENS = {"encode 1 128": 128, "encode 8 128": 1024, "encode 16 32": 512}


def run(work: Path, rounds: int) -> None:
    source = engines.checkpoint("bert-base", work / "bert")
    seconds = engines.export(source, "feature-extraction", work / "float32", "float32")
    engines.export(source, "feature-extraction", work / "int8", "int8")
    theirs = float(engines.prepared(REFERENCES, "optimum", source, work / "optimum"))
    engines.prepared(REFERENCES, "optimum-int8", work / "optimum", work / "optimum-int8")
    found = {
        "serve float32": Engine("ours-encoder", work / "float32"),
        "Optimum float32": Engine("optimum-encoder", work / "optimum"),
        "serve int8": Engine("ours-encoder", work / "int8"),
        "Optimum int8": Engine("optimum-encoder", work / "optimum-int8"),
        "CTranslate2 int8": Engine(
            "ctranslate2-encoder", engines.ctranslate2(source, work / "ct2", "int8")
        ),
    }
    rows = engines.turns(engines.alike(found, list(TOKENS)), TOKENS, rounds)
    rows += [
        engines.ratio(rows, "serve float32", ["Optimum float32"]),
        engines.ratio(rows, "serve int8", ["Optimum int8", "CTranslate2 int8"]),
    ]
    report("encode, BERT-base: tokens per second and ratios", rows)
    report(
        "export of BERT-base, float32: seconds",
        [{"this project": seconds, "Optimum": theirs, "ratio": seconds / theirs}],
    )
