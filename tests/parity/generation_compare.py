"""Compares what bundles generate with what Hugging Face's `generate` did.

    .venv/bin/python -m tests.parity.generation_compare --out build/parity

takes what `tests.parity.generation_reference` wrote. Last line of stdout: one JSON object. Exit
code 1 if a sequence, a score, a log-probability, a rule or a warper differs.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np

from serve.decoding.generator import Generator
from serve.decoding.processing import Processors
from serve.decoding.request import Completion
from serve.decoding.sampling import log_softmax, warp
from serve.decoding.settings import GenerationSettings

from .generation import ANSWERS, FOLDER, KINDS, RULES, WARPERS, folder_of

TOLERANCE = 1e-4
TIE = 2e-6
"""Scores closer than this are in any order: sums of float32 differ by as much."""
TARGETS = {"gpt2": ("onnxruntime", "portable"), "bart": ("onnxruntime", "portable")}
"""Targets of each kind; else "onnxruntime" alone."""


def settings_from(given: dict[str, Any]) -> GenerationSettings:
    """The settings of a row of the file, whose keys are texts."""
    bias = {int(token): value for token, value in given.get("logit_bias", {}).items()}
    return GenerationSettings(**{**given, "logit_bias": bias, "logprobs": 0})


def requests_of(
    rows: list[dict[str, Any]], generator: Generator
) -> tuple[list[list[int]], list[GenerationSettings], Any]:
    """The arguments of `Generator.complete` for rows of the file."""
    settings = [
        generator.settings(logprobs=0)
        if row["settings"] is None
        else settings_from(row["settings"])
        for row in rows
    ]
    prefix = None
    if generator.encoder is not None:
        start = int(generator.defaults.decoder_start_token_id or 0)
        prefix = [[start, *(row["prefix"] or [])] for row in rows]
    return [row["input_ids"] for row in rows], settings, prefix


def bundle_of(kind: str, target: str, out: Path, folder: Path) -> Path:
    """Exports a kind's model."""
    import zoo
    from zoo.quiet import start_tensorflow

    start_tensorflow()
    from export import to_onnx

    model = zoo.from_pretrained(folder_of(out, kind), dtype="float32")
    to_onnx(model, folder, target=target, verify=False)
    return folder


def compare_kind(kind: str, target: str, out: Path) -> dict[str, Any]:
    """All requests of a kind, run together: largest differences, and what is wrong."""
    rows = json.loads((folder_of(out, kind) / ANSWERS).read_text())
    with tempfile.TemporaryDirectory() as folder:
        generator = Generator(bundle_of(kind, target, out, Path(folder) / "bundle"))
        input_ids, settings, prefix = requests_of(rows, generator)
        found = generator.complete(input_ids, settings, prefix)
    report: dict[str, Any] = {
        "kind": kind,
        "target": target,
        "settings": len(rows),
        "beams": sum(one.num_beams > 1 for one in settings),
        "sequences": 0,
        "ties": 0,
        "score": 0.0,
        "logprob": 0.0,
        "problems": [],
    }
    used: Counter[str] = Counter()  # how often each setting is among them
    for at, (row, completions, one) in enumerate(zip(rows, found, settings, strict=True)):
        used.update(list(row["settings"] or ["none"]))
        problem = compare_answer(row["answers"], completions, one, report)
        if problem:
            report["problems"].append(f"{kind}/{at}: {problem}; {row['settings']}")
    report["used"] = dict(sorted(used.items()))
    return report


def compare_answer(
    expected: list[dict[str, Any]],
    found: list[Completion],
    settings: GenerationSettings,
    report: dict[str, Any],
) -> str | None:
    """What is wrong with one answer; notes the largest differences."""
    if len(found) != len(expected):
        return f"{len(found)} sequences, not {len(expected)}"
    ordered = _like(found, expected, settings)
    report["ties"] += ordered != found
    for rank, (ours, theirs) in enumerate(zip(ordered, expected, strict=True)):
        report["sequences"] += 1
        tokens, ended = _without_end(theirs, settings)
        if list(ours.token_ids) != tokens or (ours.finish_reason == "eos") != ended:
            scores = [one["score"] for one in expected], [one.score for one in found]
            return (
                f"sequence {rank} is {list(ours.token_ids)} ({ours.finish_reason}), "
                f"not {theirs['tokens']}; scores {scores[1]}, not {scores[0]}"
            )
        gaps = {"logprob": _gap([one.logprob for one in ours.logprobs or ()], theirs["logprobs"])}
        if theirs["score"] is not None:  # a negative length penalty makes large ones
            gaps["score"] = _gap([ours.score], [theirs["score"]]) / max(1.0, abs(theirs["score"]))
        for name, gap in gaps.items():
            report[name] = max(report[name], gap)
            if not gap <= TOLERANCE:
                return f"sequence {rank}: {name} is off by {gap:.3g}"
    return None


def _without_end(theirs: dict[str, Any], settings: GenerationSettings) -> tuple[list[int], bool]:
    """The tokens of the reference's sequence, and whether an end token stood behind them."""
    ended = theirs["tokens"][-1] in settings.eos_token_id
    return (theirs["tokens"][:-1] if ended else theirs["tokens"]), ended


def _like(
    found: list[Completion], expected: list[dict[str, Any]], settings: GenerationSettings
) -> list[Completion]:
    """Our sequences, those that the reference scores alike in its order."""
    ordered = list(found)
    for at, theirs in enumerate(expected):
        wanted = _without_end(theirs, settings)[0]
        for other in range(at + 1, len(expected)):
            if abs(theirs["score"] - expected[other]["score"]) > TIE * max(1, abs(theirs["score"])):
                break
            if list(ordered[at].token_ids) != wanted == list(ordered[other].token_ids):
                ordered[at], ordered[other] = ordered[other], ordered[at]
    return ordered


def _gap(found: Any, expected: Any) -> float:
    if len(found) != len(expected):
        return float("inf")
    return float(np.max(np.abs(np.array(found, float) - np.array(expected, float)), initial=0.0))


def compare_rules(out: Path) -> dict[str, Any]:
    """`Processors` on the reference's rows."""
    rows = json.loads((out / FOLDER / RULES).read_text())
    report: dict[str, Any] = {"rows": len(rows), "largest": 0.0, "problems": []}
    for at, row in enumerate(rows):
        scores, expected = (np.array(row[name], np.float32) for name in ("scores", "after"))
        settings = settings_from(row["settings"])
        most = int(settings.max_new_tokens or 0)
        rules = Processors(settings, row["prompt"], len(scores), row["encoder_ids"], most)
        after = rules(scores.copy(), row["new"])
        finite = np.isfinite(expected)
        gap = _gap(after[finite], expected[finite])
        report["largest"] = max(report["largest"], gap)
        if not gap <= 1e-5 or not np.array_equal(np.isfinite(after), finite):
            report["problems"].append(f"rules/{at}: off by {gap:.3g}; {row['settings']}")
    return report


def compare_warpers(out: Path) -> dict[str, Any]:
    """`warp` on the reference's rows. Which of several equal scores a bound leaves out is chance
    with the reference, whose sort is not stable: such rows must keep equal scores, and are counted.
    """
    arrays = np.load(out / FOLDER / WARPERS)
    given = json.loads(str(arrays["settings"]))
    report: dict[str, Any] = {"rows": len(given), "ties": 0, "largest": 0.0, "problems": []}
    for at, settings in enumerate(given):
        scores, expected = arrays[f"scores/{at}"], arrays[f"after/{at}"]
        after = warp(scores, GenerationSettings(do_sample=True, **settings))
        ours, theirs = (np.sort(np.exp(log_softmax(row))) for row in (after, expected))
        gap = _gap(ours, theirs)
        report["largest"] = max(report["largest"], gap)
        report["ties"] += not np.array_equal(np.isfinite(after), np.isfinite(expected))
        if not gap <= 1e-5 or np.isfinite(after).sum() != np.isfinite(expected).sum():
            report["problems"].append(f"warpers/{at}: off by {gap:.3g}; {settings}")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/parity"))
    parser.add_argument("--only", nargs="*", default=list(KINDS), help="kinds of models")
    args = parser.parse_args()
    began = time.time()
    kinds = [
        compare_kind(kind, target, args.out.resolve())
        for kind in args.only
        for target in TARGETS.get(kind, ("onnxruntime",))
    ]
    rules, warpers = compare_rules(args.out), compare_warpers(args.out)
    for report in (*kinds, rules, warpers):
        for problem in report["problems"]:
            print(problem, flush=True)
    result = {
        "kinds": [{**report, "problems": len(report["problems"])} for report in kinds],
        "rules": {**rules, "problems": len(rules["problems"])},
        "warpers": {**warpers, "problems": len(warpers["problems"])},
        "seconds": round(time.time() - began, 1),
    }
    print(json.dumps(result))
    sys.exit(any(report["problems"] for report in (*kinds, rules, warpers)))


if __name__ == "__main__":
    main()
