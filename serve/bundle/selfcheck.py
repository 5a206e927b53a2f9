"""Replays the reference values that a bundle carries, through the code that answers requests.

`verification.npz` holds what the model computed before it was exported:

- `{case}/{graph}/inputs/{name}` and `{case}/{graph}/outputs/{name}`: one run of a graph;
- `{case}/sequence/input_ids`, `attention_mask`, `logits` (and `decoder_input_ids`, for an
  encoder-decoder): a full pass without cache, which prefill and cached steps must reproduce;
- `tokenizer/texts` and `tokenizer/ids`: JSON texts, a list of texts and their lists of ids.
"""

from __future__ import annotations

import json
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from serve.bundle.integrity import Check
from serve.bundle.manifest import Manifest
from serve.decoding.generator import Generator
from serve.errors import BundleError
from serve.runtime.session import Session, SessionOptions
from serve.text.tokenizer import TextTokenizer

REFERENCE = "verification.npz"
TOLERANCE = 1e-3

Observer = Callable[[str, np.ndarray, np.ndarray], None]
"""Is shown each output's name with what was found and what was expected."""

Case = dict[
    str, dict[str, dict[str, np.ndarray]]
]  # graph -> "inputs" | "outputs" -> name -> values


def replay(
    bundle: str | Path | Manifest,
    options: SessionOptions | None = None,
    tolerance: float | None = None,
    check: Check = True,
    reference: Mapping[str, np.ndarray] | None = None,
    measure: str | None = None,
    observe: Observer | None = None,
) -> dict[str, Any]:
    """Run every case of the bundle's reference values and compare.

    Args:
        bundle: The bundle.
        options: How to run the graphs.
        tolerance: Largest difference allowed; by default the manifest's own
            (`verification.tolerance`), else 1e-3.
        check: As for `Manifest.load`.
        reference: Other reference values, in the form of `verification.npz`.
        measure: A name in `MEASURES`; by default the manifest's own, else "largest".
        observe: Sees every comparison.

    Returns:
        `cases`: difference by case, graph and output; `largest` of all; `measure`; `tolerance`;
        `tokenizer_texts`: how many texts gave the same ids; `seconds`;
        `has_reference`: False where the bundle carries no reference values.

    Raises:
        BundleError: A difference is beyond the tolerance, naming the case and the figures.
    """
    manifest = bundle if isinstance(bundle, Manifest) else Manifest.load(bundle, check)
    if tolerance is None:
        tolerance = float(manifest.verification.get("tolerance", TOLERANCE))
    measure = measure or str(manifest.verification.get("measure", "largest"))
    compare = _comparer(measure, observe)
    started = time.perf_counter()
    cases, texts = _sort(_read(manifest) if reference is None else reference)
    differences: dict[str, dict[str, dict[str, float]]] = {}
    count = _check_tokenizer(manifest, texts) if texts else 0
    generator: Generator | None = None
    sessions: dict[str, Session] = {}
    if any("sequence" in case for case in cases.values()):
        generator = Generator(manifest, options)
        sessions = {"decoder" if generator.encoder else "model": generator.decoder}
        if generator.encoder:
            sessions["encoder"] = generator.encoder
    for name, case in cases.items():
        differences[name] = {}
        for graph, parts in case.items():
            if graph == "sequence":
                assert generator is not None
                differences[name][graph] = _check_sequence(generator, parts[""], compare)
                continue
            if graph not in manifest.graphs:
                raise BundleError(
                    f"{REFERENCE}: case {name!r} is about the graph {graph!r}, "
                    f"the bundle has {sorted(manifest.graphs)}"
                )
            if graph not in sessions:
                sessions[graph] = Session(manifest.path(manifest.graphs[graph].file), options)
            expected = parts["outputs"]
            found = sessions[graph].run(parts["inputs"], list(expected))
            mask = parts["inputs"].get("attention_mask")
            differences[name][graph] = {
                output: compare(output, _at_tokens(found[output], mask), _at_tokens(value, mask))
                for output, value in expected.items()
            }
    report = {
        "has_reference": bool(cases or texts),
        "cases": differences,
        "largest": _largest(differences),
        "measure": measure,
        "tolerance": tolerance,
        "tokenizer_texts": count,
        "seconds": time.perf_counter() - started,
    }
    _judge(manifest, differences, tolerance)
    return report


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest absolute difference; infinite where shapes differ or a value is not a number."""
    if found.shape != expected.shape:
        return float("inf")
    if not found.size:
        return 0.0
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        gaps = np.where(found == expected, 0.0, np.abs(found - expected))
    largest = float(gaps.max())
    return largest if np.isfinite(largest) else float("inf")


def relative_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Root mean square of the difference over that of what was expected."""
    largest = difference(found, expected)
    if not np.isfinite(largest) or largest == 0:
        return largest
    gaps = found.astype(np.float64) - expected.astype(np.float64)
    size = float(np.sqrt(np.mean(np.square(expected.astype(np.float64)))))
    return float(np.sqrt(np.mean(np.square(gaps)))) / max(size, 1e-12)


MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "largest": difference,
    "relative": relative_difference,
}
"""How differences are measured: absolutely, and, where weights are quantised, as a share."""


def _comparer(
    measure: str, observe: Observer | None
) -> Callable[[str, np.ndarray, np.ndarray], float]:
    if measure not in MEASURES:
        raise BundleError(f"measure {measure!r} is not known: expected one of {sorted(MEASURES)}")

    def compare(name: str, found: np.ndarray, expected: np.ndarray) -> float:
        if observe is not None:
            observe(name, found, expected)
        return MEASURES[measure](found, expected)

    return compare


def _at_tokens(values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Values [B, T, ...] where `mask` [B, T] has tokens; others as they are.

    What stands at padding is nobody's, and half precisions have no number large enough to hide
    from it what float32 hides.
    """
    if mask is None or values.ndim < 2 or values.shape[:2] != mask.shape:
        return values
    return values[mask.astype(bool)]


def _largest(differences: Mapping[str, Mapping[str, Mapping[str, float]]]) -> float:
    return max(
        (gap for case in differences.values() for graph in case.values() for gap in graph.values()),
        default=0.0,
    )


def _judge(
    manifest: Manifest,
    differences: Mapping[str, Mapping[str, Mapping[str, float]]],
    tolerance: float,
) -> None:
    wrong = [
        f"case {case!r}, {graph} {output}: {gap:.3g}"
        for case, graphs in differences.items()
        for graph, outputs in graphs.items()
        for output, gap in outputs.items()
        if not gap <= tolerance
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise BundleError(
            f"bundle {manifest.name!r} does not reproduce its reference values within "
            f"{tolerance:g}: {'; '.join(wrong[:3])}{more}"
        )


def _read(manifest: Manifest) -> dict[str, np.ndarray]:
    """The arrays of `verification.npz`; none where the bundle has no such file."""
    if REFERENCE not in manifest.files:
        return {}
    path = manifest.path(REFERENCE)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error


def _sort(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, Case], dict[str, Any]]:
    """Cases, and the tokenizer's texts and ids."""
    cases: dict[str, Case] = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    texts: dict[str, Any] = {}
    for key, array in arrays.items():
        case, _, rest = key.partition("/")
        if case == "tokenizer":
            try:
                texts[rest] = json.loads(str(array))
            except ValueError as error:
                raise BundleError(f"{REFERENCE}: {key!r} is not JSON: {error}") from error
            continue
        graph, _, rest = rest.partition("/")
        side, _, name = rest.partition("/") if graph != "sequence" else ("", "", rest)
        if not name or side not in ("inputs", "outputs", ""):
            raise BundleError(f"{REFERENCE} holds {key!r}, expected case/graph/inputs/name")
        cases[case][graph][side][name] = array
    return dict(cases), texts


def _check_tokenizer(manifest: Manifest, texts: Mapping[str, Any]) -> int:
    if set(texts) != {"texts", "ids"} or len(texts["texts"]) != len(texts["ids"]):
        raise BundleError(f"{REFERENCE}: expected tokenizer/texts and tokenizer/ids, equally long")
    if not texts["texts"]:
        return 0
    encodings = TextTokenizer.of(manifest).encode(texts["texts"])
    for text, ids, encoding in zip(texts["texts"], texts["ids"], encodings, strict=True):
        if list(encoding.ids) != list(ids):
            raise BundleError(
                f"bundle {manifest.name!r}: the tokenizer gives {encoding.ids[:12]} for "
                f"{text!r:.60}, the reference is {list(ids)[:12]}"
            )
    return len(texts["texts"])


def _check_sequence(
    generator: Generator,
    case: Mapping[str, np.ndarray],
    compare: Callable[[str, np.ndarray, np.ndarray], float],
) -> dict[str, float]:
    """Read about half of each row, some more of it at once and the rest by steps: logits of a full
    pass.
    """
    needed = {"input_ids", "attention_mask", "logits"}
    if generator.encoder:
        needed.add("decoder_input_ids")
    if set(case) != needed:
        raise BundleError(f"{REFERENCE}: a sequence holds {sorted(needed)}, found {sorted(case)}")
    inputs = [
        ids[: int(mask.sum())].tolist()
        for ids, mask in zip(case["input_ids"], case["attention_mask"], strict=True)
    ]
    rows = case["decoder_input_ids"].tolist() if generator.encoder else inputs
    expected = case["logits"]
    lengths = np.array([len(row) for row in rows])
    at = np.maximum(1, (lengths + np.arange(len(rows)) % 2) // 2)  # ragged, even where rows are not
    more = np.where(lengths - at > 2, (lengths - at) // 2, 0)  # read at once, behind a past
    order = np.argsort(at + more - lengths, kind="stable")  # those that step longest in front
    rows, inputs = [rows[line] for line in order], [inputs[line] for line in order]
    expected, lengths, at, more = expected[order], lengths[order], at[order], more[order]
    prompts = [row[:size] for row, size in zip(rows, at, strict=True)]
    cache, logits = generator.start(inputs, prompts, int((lengths - at).max()) + 1)
    line = np.arange(len(rows))
    gaps = {"prefill": compare("logits", logits, expected[line, at - 1])}
    chunks, steps = [0.0], [0.0]
    for row in np.flatnonzero(more):
        first, stop = int(at[row]), int(at[row] + more[row])
        logits = cache.extend(int(row), rows[row][first:stop], every=True)
        chunks.append(compare("logits", logits, expected[row, first:stop]))
    at = at + more
    while left := int((at < lengths).sum()):
        tokens = np.array([row[size] for row, size in zip(rows[:left], at[:left], strict=True)])
        logits = cache.step(tokens)
        steps.append(compare("logits", logits, expected[line[:left], at[:left]]))
        at = at + (line < left)
    return {**gaps, "chunks": max(chunks), "steps": max(steps)}
