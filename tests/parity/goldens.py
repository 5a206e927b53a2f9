"""Stores the golden cases for the tests that run without the reference; needs neither library.

    python -m tests.parity.goldens --parity build/parity --out tests/goldens

takes them from the folders that `tests.parity.reference` wrote. One file per family holds, for each
of its golden cases, config, tensor names and shapes, inputs, and the values at valid positions;
weights come from `stream.tensor`.
"""

import argparse
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import stream
from .cases import Case, all_cases

FOLDER = Path(__file__).parents[1] / "goldens"


@dataclass(frozen=True)
class Golden:
    """A stored case."""

    case: Case
    config: dict[str, Any]
    tensors: dict[str, tuple[list[int], str]]
    values: dict[str, np.ndarray]

    def write_folder(self, folder: Path) -> dict[str, np.ndarray]:
        """Writes config.json and model.safetensors; returns the tensors."""
        from safetensors.numpy import save_file

        tensors = {
            name: stream.tensor(name, tuple(shape), kind, self.case.spread)
            for name, (shape, kind) in self.tensors.items()
        }
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(self.config))
        return tensors


def packed(values: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Values without what stands at padding; ids in two bytes."""
    for name, value in values.items():
        if value.dtype.kind == "i":
            yield name, value.astype("int16")
            continue
        mask = mask_of(name, value, values)
        yield name, value if mask is None else value[mask]


def mask_of(name: str, value: np.ndarray, values: dict[str, np.ndarray]) -> np.ndarray | None:
    """The valid positions [B, T] of a stored float value; None where it has no positions."""
    own = "attention_mask" if name.startswith("encoder_") else "decoder_mask"
    mask = values[own if own in values else "attention_mask"].astype(bool)
    return mask if value.shape[:2] == mask.shape else None


def unpacked(values: dict[str, np.ndarray], shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """What `packed` was given, with zeros at padding."""
    whole = {}
    for name, value in values.items():
        shape = tuple(shapes[name])
        if value.shape == shape:
            whole[name] = value
            continue
        whole[name] = np.zeros(shape, value.dtype)
        whole[name][mask_of(name, whole[name], values)] = value
    return whole


def write(cases: list[Case], parity: Path, path: Path) -> None:
    """Writes the golden cases of one family; equal inputs give equal bytes."""
    arrays: dict[str, np.ndarray] = {}
    about: dict[str, Any] = {}
    for case in cases:
        folder = parity / case.folder
        described = json.loads((folder / "case.json").read_text())
        with np.load(folder / "values.npz") as stored:
            values = dict(stored)
        about[case.name] = {
            "config": json.loads((folder / "config.json").read_text()),
            "tensors": described["tensors"],
            "shapes": {name: value.shape for name, value in values.items()},
        }
        arrays.update({f"{case.name}:{name}": value for name, value in packed(values)})
    text = json.dumps(about, separators=(",", ":")).encode()
    np.savez_compressed(path, about=np.frombuffer(text, "uint8"), **arrays)


def read(path: Path) -> Iterator[Golden]:
    """The golden cases of one family's file."""
    with np.load(path) as stored:
        about = json.loads(stored["about"].tobytes())
        arrays = {name: stored[name] for name in stored.files}
    cases = {case.name: case for case in all_cases((path.stem,))}
    for name, facts in about.items():
        prefix = f"{name}:"
        values = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        yield Golden(
            cases[name], facts["config"], facts["tensors"], unpacked(values, facts["shapes"])
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parity", type=Path, default=Path("build/parity"))
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--only", nargs="*", default=[], help="families")
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True)
    families: dict[str, list[Case]] = {}
    for case in all_cases(tuple(args.only)):
        plain = dataclasses.replace(case, stored_as=(), prefixed=True, copies={}, dtype="float32")
        if case.golden and plain != case:
            raise SystemExit(f"{case.folder}: a golden case keeps the reference's names and floats")
        if case.golden:
            families.setdefault(case.model_type, []).append(case)
    for model_type, cases in families.items():
        write(cases, args.parity, args.out / f"{model_type}.npz")
    total = sum(path.stat().st_size for path in args.out.glob("*.npz"))
    print(json.dumps({"families": len(families), "kilobytes": total // 1000}))


if __name__ == "__main__":
    main()
