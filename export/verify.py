"""Does an export compute what Keras computes? Asked of the code that ships, before an export
reports success.
"""

from pathlib import Path
from typing import Any

from export.errors import VerificationError
from export.models import prepared, tokenizer_of
from export.quantization.agreement import Agreement
from export.reference import reference_values
from export.tolerances import (
    HALF_TOLERANCES,
    MIXTURE_TOLERANCES,
    QUANTIZED_MIXTURE_TOLERANCE,
    QUANTIZED_TOLERANCES,
    TOLERANCES,
)
from serve.bundle.manifest import Manifest
from serve.bundle.selfcheck import replay
from serve.errors import ServeError
from serve.runtime.session import Session


def replay_bundle(folder: str | Path) -> dict[str, Any]:
    """Replays a bundle's reference values through `serve`, and checks its names and axes; returns
    the report.

    Raises:
        VerificationError: A name, axis or value is not what it should be.
    """
    try:
        manifest = Manifest.load(folder, check="size")
        _check_names(manifest)
        agreement = Agreement()
        report = replay(manifest, **allowed(manifest), observe=agreement)
        if manifest.quantization is not None:
            report["agreement"] = agreement.figures()
    except ServeError as error:
        raise VerificationError(f"the exported bundle is not right: {error}") from error
    report.pop("seconds")  # a bundle is the same bytes whenever it is made
    return report


def compare_bundle(model: Any, folder: str | Path, seed: int = 1) -> dict[str, Any]:
    """Compares a bundle with a live Keras model, on other inputs than those it carries; returns the
    report.

    Raises:
        VerificationError: They do not agree.
    """
    model = prepared(model)
    try:
        manifest = Manifest.load(folder, check="size")
        reference = reference_values(model, tokenizer_of(model, None), seed)
        return replay(manifest, **allowed(manifest), reference=reference)
    except ServeError as error:
        raise VerificationError(f"the bundle does not agree with the model: {error}") from error


def allowed(manifest: Manifest) -> dict[str, Any]:
    """How a bundle's values are measured, and how far off they may be."""
    mixture = any("Loop" in graph.operators for graph in manifest.graphs.values())
    if manifest.quantization is not None:
        tolerance = QUANTIZED_MIXTURE_TOLERANCE if mixture else 0.0
        tolerance = max(tolerance, QUANTIZED_TOLERANCES[manifest.precision])
        return {"measure": "relative", "tolerance": tolerance}
    if manifest.precision in HALF_TOLERANCES:
        table = MIXTURE_TOLERANCES if mixture else HALF_TOLERANCES
        return {"measure": "relative", "tolerance": table[manifest.precision]}
    return {"measure": "largest", "tolerance": TOLERANCES[manifest.precision]}


def _check_names(manifest: Manifest) -> None:
    """The graphs' own inputs and outputs must be those that the manifest states."""
    for name, graph in manifest.graphs.items():
        session = Session(Path(manifest.path(graph.file)))
        optional = set(graph.optional_inputs)
        found = {
            **{key: tensor.shape for key, tensor in session.inputs.items()},
            **{key: tensor.shape for key, tensor in session.overridable.items()},
            **{key: tensor.shape for key, tensor in session.outputs.items()},
        }
        stated = {tensor.name: tuple(tensor.shape) for tensor in (*graph.inputs, *graph.outputs)}
        wrong = sorted(
            key for key in stated if found.get(key) != stated[key] and key not in optional
        )
        if wrong or set(found) != set(stated):
            raise VerificationError(
                f"graph {name!r}: tensors {wrong or sorted(set(found) ^ set(stated))} are not "
                "as the manifest states them"
            )
