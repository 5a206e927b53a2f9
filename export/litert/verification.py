"""Does a .tflite file compute what Keras computes? Asked of LiteRT's interpreter, before the folder
appears.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.errors import ExportError, VerificationError
from export.graphs import Graph
from export.reference import full_passes, reference_values
from export.tolerances import LITERT_TOLERANCES
from serve.bundle.selfcheck import difference
from zoo.tasks import TaskModel

CLASSES = ("logits", "start_logits", "end_logits")
"""Outputs of which the largest value is the answer."""


def interpreter_type() -> Any:
    """The class `ai_edge_litert.interpreter.Interpreter`.

    Raises:
        ExportError: It is not installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ExportError(
            "verification runs LiteRT's interpreter: pip install ai-edge-litert, or export with "
            "verify=False"
        ) from error
    return Interpreter


class _Gaps:
    """Differences of one output, over all cases."""

    def __init__(self) -> None:
        self.largest = 0.0
        self.squares = np.zeros(2)  # of the differences, of the expected values
        self.agreed: list[bool] = []

    def add(self, name: str, found: np.ndarray, expected: np.ndarray) -> None:
        self.largest = max(self.largest, difference(found, expected))
        if not np.isfinite(self.largest):
            return
        pair = (found.astype("float64") - expected, expected.astype("float64"))
        self.squares += [np.square(part).sum() for part in pair]
        if name in CLASSES:
            self.agreed += (found.argmax(axis=-1) == expected.argmax(axis=-1)).reshape(-1).tolist()

    @property
    def report(self) -> dict[str, float]:
        """`largest` difference; `relative`, the root of the summed squares of the differences over
        that of the values; for logits `agreement`, the share of equal best classes.
        """
        if not np.isfinite(self.largest):
            return {"largest": self.largest, "relative": self.largest}
        relative = float(np.sqrt(self.squares[0] / max(self.squares[1], 1e-30)))
        report = {"largest": self.largest, "relative": relative}
        return report | ({"agreement": float(np.mean(self.agreed))} if self.agreed else {})


def verified(
    model: TaskModel, path: Path, graphs: Sequence[Graph], length: int | None, precision: str
) -> dict[str, Any]:
    """Runs the reference cases, whose shapes were not traced, through every signature; generating
    models take a part of each text by prefill and the rest token by token.

    Args:
        model: The model; float32.
        path: The .tflite file.
        graphs: Its signatures.
        length: Positions of its cache; None where it has none.
        precision: Which row of `LITERT_TOLERANCES` holds.

    Returns:
        `outputs`: by name `largest`, `relative` and `agreement` (see `_Gaps`), `measure`: which of
        these was judged, `found`: its worst value, and `tolerance`.

    Raises:
        VerificationError: A name, a shape or a value is not what it should be.
    """
    interpreter = interpreter_type()(model_path=str(path))
    _check_names(interpreter, graphs)
    runners = {graph.name: interpreter.get_signature_runner(graph.name) for graph in graphs}
    gaps: dict[str, _Gaps] = {}
    for case, feeds, expected in full_passes(reference_values(model, None)):
        try:
            if length is None:
                found = _run(runners["serving_default"], feeds)
                for name, value in expected.items():
                    gaps.setdefault(name, _Gaps()).add(name, found[name], value)
            else:
                _generated(model, runners, feeds, expected["logits"], length, gaps)
        except (RuntimeError, ValueError) as error:
            raise VerificationError(f"LiteRT cannot run the case {case!r}: {error}") from error
    measure, tolerance = LITERT_TOLERANCES[precision]
    outputs = {name: gap.report for name, gap in gaps.items()}
    name = max(outputs, key=lambda key: outputs[key][measure])
    found_gap = outputs[name][measure]
    if not found_gap <= tolerance:
        raise VerificationError(
            f"the .tflite file differs from Keras: the {measure} difference of {name!r} is "
            f"{found_gap:.2g}, tolerance {tolerance:.2g}"
        )
    return {"outputs": outputs, "measure": measure, "found": found_gap, "tolerance": tolerance}


def _check_names(interpreter: Any, graphs: Sequence[Graph]) -> None:
    signatures = interpreter.get_signature_list()
    stated = {
        graph.name: {
            "inputs": sorted(tensor.name for tensor in graph.inputs),
            "outputs": sorted(tensor.name for tensor in graph.outputs),
        }
        for graph in graphs
    }
    found = {
        name: {side: sorted(names) for side, names in sides.items()}
        for name, sides in signatures.items()
    }
    if found != stated:
        raise VerificationError(f"the file's signatures are {found}, expected {stated}")


def _run(runner: Any, feeds: dict[str, Any]) -> dict[str, np.ndarray]:
    integers = {
        name: value.astype("int64") if value.dtype.kind == "i" else value
        for name, value in feeds.items()
    }
    return dict(runner(**integers))


def _fed_back(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The caches among the outputs, as the next call takes them."""
    return {
        name.replace("present.", "past_key_values.", 1): value
        for name, value in outputs.items()
        if name.startswith("present.")
    }


def _generated(
    model: TaskModel,
    runners: dict[str, Any],
    feeds: dict[str, Any],
    expected: np.ndarray,
    length: int,
    gaps: dict[str, _Gaps],
) -> None:
    """Compares the full pass' logits with those of prefill and decode, as far as the cache goes.

    Rows have lengths of their own; what a row computes behind its end is not compared.
    """
    ids, mask = feeds["input_ids"], feeds["attention_mask"]
    memory: dict[str, Any] = {}
    if model.encoder is not None:
        memory = _fed_back(_run(runners["encode"], {"input_ids": ids, "attention_mask": mask}))
        memory["encoder_attention_mask"] = mask
        ids = feeds["decoder_input_ids"]
        mask = np.ones_like(ids)
    ids, mask = ids[:, :length], mask[:, :length]
    rows, lengths = np.arange(len(ids)), mask.sum(axis=1)
    width = max(1, ids.shape[1] // 2)
    prompt = {"input_ids": ids[:, :width], "attention_mask": mask[:, :width]}
    found = _run(runners["prefill"], {**prompt, **memory})
    filled = np.minimum(lengths, width)
    while True:
        live = filled <= lengths
        logits = found["logits"][live, 0], expected[rows, np.minimum(filled, lengths) - 1][live]
        gaps.setdefault("logits", _Gaps()).add("logits", *logits)
        filled = np.where(filled <= lengths, filled + 1, filled)
        if (filled > lengths).all():
            return
        at = np.minimum(filled, lengths) - 1
        step = {
            "input_ids": ids[rows, at][:, None],
            "attention_mask": (np.arange(length) <= at[:, None]).astype("int64"),
        }
        found = _run(runners["decode"], {**step, **_fed_back(found), **memory})
