"""The Python of docs/layouts.md, run as it stands, beside transformers and sentence-transformers.

The clients' lines run twice: on the export, and changed so that they read the checkpoint.
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .registry import Case, Found
from .sentences import TEXTS, without_segments, write_folder

PAGE = Path(__file__).parents[2] / "docs" / "layouts.md"
TOLERANCE = 1e-5  # 1.2e-7 at most was met
REFERENCE = (
    (r"from optimum\.onnxruntime import ORT(\w+)", r"from transformers import Auto\1 as ORT\1"),
    (r"bundles/", "checkpoints/"),
    (r', backend="onnx"', ', backend="torch"'),
)
"""What turns a client's lines into those of its reference."""


def cases() -> list[Case]:
    rows = {
        "reviews": ("bert/sequence-classification", "text-classification", "logits"),
        "writer": ("llama/grouped", "text-generation", "ids"),
        "vectors": ("bert/base-model", "sentence-similarity", "vectors"),
    }
    return [
        Case(name, source, task, config={"pad_token_id": 0}, settings={"result": result})
        for name, (source, task, result) in rows.items()
    ]


def blocks(name: str) -> tuple[str, str]:
    """The page's lines that export `name` and, of the same section, those of its client."""
    for section in PAGE.read_text(encoding="utf-8").split("\n## "):
        found = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
        clients = [block for block in found[1:] if f'"bundles/{name}"' in block]
        if clients:
            return found[0], clients[0]
    raise LookupError(f"{PAGE} has no client that opens bundles/{name}")


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Runs what follows in `folder`, where the page's paths begin."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def export(case: Case, checkpoint: Path, out: Path) -> None:
    import zoo

    folder = out / "checkpoints" / case.name
    shutil.copytree(checkpoint, folder)
    template = "decoder" if case.task == "text-generation" else "encoder"
    zoo.Tokenizer.train("wordpiece", list(TEXTS), vocab_size=90, template=template).save(folder)
    if case.task == "sentence-similarity":
        width = json.loads((folder / "config.json").read_text())["hidden_size"]
        write_folder(folder, width)
    if case.task == "text-generation":
        without_segments(folder)
    code, _ = blocks(case.name)
    with inside(out):
        exec(compile(code.replace("reviews", case.name), str(PAGE), "exec"), {})


def check(case: Case, checkpoint: Path, out: Path) -> Found:
    import torch

    torch.set_num_threads(1)
    _, code = blocks(case.name)
    changed = code
    for pattern, replacement in REFERENCE:
        changed = re.sub(pattern, replacement, changed)
    found, expected = (result(text, case.settings["result"], out) for text in (code, changed))
    if case.task == "text-generation":
        same = int((found == expected).sum()) if found.shape == expected.shape else 0
        return Found(tokens=(expected.size, same))
    return Found(difference=float(np.abs(found - expected).max()), tolerance=TOLERANCE)


def result(code: str, name: str, folder: Path) -> np.ndarray:
    """What the lines leave under `name`."""
    names: dict[str, Any] = {}
    with inside(folder):
        exec(compile(code, str(PAGE), "exec"), names)
    value = names[name]
    return np.asarray(value.detach() if hasattr(value, "detach") else value)
