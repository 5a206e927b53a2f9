"""Stores a few of the reference's answers for the tests that run without it.

    python -m tests.parity.generation_goldens --parity build/parity

takes them from what `tests.parity.generation_reference` wrote; the models' weights are made anew
from their names.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from . import goldens
from .generation import ANSWERS, COUNT, DEFAULTS, KINDS, folder_of

PATH = goldens.FOLDER / "generation.json"
STORED = ("gpt2", "bart")
"""Kinds whose cases are golden ones."""
MOST = 32
"""Requests with settings of their own; those that leave all to the checkpoint come besides."""


def answers(kind: str) -> list[dict[str, Any]]:
    """The stored requests of a kind, with the reference's answers."""
    rows: list[dict[str, Any]] = json.loads(PATH.read_text())[kind]
    return rows


def write_folder(kind: str, folder: Path) -> None:
    """Makes the folder that the reference answered from."""
    stored = goldens.read(goldens.FOLDER / f"{kind}.npz")
    [golden] = [one for one in stored if one.case.name == KINDS[kind]]
    wide = dataclasses.replace(golden.case, spread=2.0)
    dataclasses.replace(golden, case=wide).write_folder(folder)
    if kind in DEFAULTS:
        special = {
            name: golden.config[name]
            for name in ("bos_token_id", "pad_token_id", "decoder_start_token_id")
        }
        file = folder / "generation_config.json"
        file.write_text(json.dumps({**special, **DEFAULTS[kind]}))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parity", type=Path, default=Path("build/parity"))
    args = parser.parse_args()
    kept = {}
    for kind in STORED:
        rows = json.loads((folder_of(args.parity, kind) / ANSWERS).read_text())
        kept[kind] = [_rounded(row) for row in (*rows[:MOST], *rows[COUNT:])]
    lines = [
        f"{json.dumps(kind)}: [\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]"
        for kind, rows in kept.items()
    ]
    PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(json.dumps({kind: len(rows) for kind, rows in kept.items()}))


if __name__ == "__main__":
    main()
