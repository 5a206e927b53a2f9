"""TensorFlow Serving's form of a model: `<model>/<version>/`, a SavedModel in each version.

https://www.tensorflow.org/tfx/serving/serving_basic: the server watches the model's folder, loads
the largest version and swaps it for a larger one when that appears; what has no number for a name
it leaves alone.
"""

import os
from pathlib import Path
from typing import Any

from export.errors import ExportError
from export.saved_model import to_saved_model

LARGEST = 2**63 - 1
"""Versions are int64."""


def to_tf_serving(
    model: Any,
    out: str | os.PathLike[str],
    *,
    version: int | str | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Exports a model as a version of a folder that TensorFlow Serving watches.

    Args:
        model: A `zoo.TaskModel`.
        out: The model's folder; other versions that it holds stay.
        version: A whole number from 1; by default one more than the largest there.
        **settings: Those of `to_saved_model`; `overwrite` replaces the version, no other.

    Returns:
        What verification measured, and the `version`.

    Raises:
        ExportError: The version is no such number or is there already, or the export fails; the
            folder is then untouched.
    """
    number = checked_version(next_version(out) if version is None else version)
    report = to_saved_model(model, Path(out) / str(number), **settings)
    return {**report, "version": number}


def checked_version(version: Any) -> int:
    """A version as a number.

    Raises:
        ExportError: It is none that servers take for one.
    """
    text = str(version)
    if isinstance(version, bool) or not (text.isascii() and text.isdigit()):
        raise ExportError(f"version = {version!r}: expected a whole number from 1")
    if text.startswith("0") or int(text) > LARGEST:
        raise ExportError(
            f"version = {version!r}: expected a whole number from 1 to {LARGEST}, without zeros "
            "before it"
        )
    return int(text)


def next_version(out: str | os.PathLike[str]) -> int:
    """One more than the largest version in a model's folder; 1 where there is none."""
    folder = Path(out)
    if not folder.is_dir():
        return 1
    names = [path.name for path in folder.iterdir() if path.is_dir()]
    return 1 + max((int(name) for name in names if name.isascii() and name.isdigit()), default=0)
