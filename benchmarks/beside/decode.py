"""One text of a decoder of 135 M, prompt and steps, beside onnxruntime-genai and CTranslate2."""

from pathlib import Path

from benchmarks.beside import engines
from benchmarks.beside.engines import BUILDER, Engine
from benchmarks.report import report

TOKENS = {"prefill 128": 128, "decode 64": 64}
KINDS = ("float32", "int8", "int4", "int8-int4")


def run(work: Path, rounds: int) -> None:
    source = engines.checkpoint("llama-135m", work / "llama")
    for kind in KINDS:
        engines.export(source, "text-generation", work / kind, kind)
    engines.prepared(BUILDER, "genai-int4", source, work / "genai", packages=BUILDER / "genai")
    found = {f"serve {kind}": Engine("ours", work / kind) for kind in KINDS}
    found["onnxruntime-genai int4"] = Engine("genai", work / "genai")
    found["CTranslate2 int8"] = Engine(
        "ctranslate2", engines.ctranslate2(source, work / "ct2", "int8")
    )
    rows = engines.turns(engines.alike(found, list(TOKENS)), TOKENS, rounds)
    for name in ("onnxruntime-genai int4", "CTranslate2 int8"):
        rows.append(engines.ratio(rows, "serve int8-int4", [name]))
    report("135 M decoder: tokens per second and ratios", rows)
