"""What a client is, and the table of them; read by both environments.

A client's module imports nothing at its top that one of the environments lacks, and has

- `cases()`: its `Case`s, data alone;
- `export(case, checkpoint, out)`: runs in the project's environment; exports the checkpoint's
  folder to `out`, which it makes, and may write other files beside it;
- `check(case, checkpoint, out)`: runs in the clients' environment; a `Found`.

What either raises becomes the case's problem.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CLIENTS = {
    "onnxruntime-genai": "tests.interop.genai",
    "optimum": "tests.interop.optimum",
    "sentence-transformers": "tests.interop.sentences",
    "triton": "tests.interop.triton",
    "docs": "tests.interop.document",
}
"""Name of each client -> its module."""


@dataclass(frozen=True)
class Case:
    """One checkpoint, exported in one way and opened by one client.

    Attributes:
        name: Unique within the client; names the case's folder.
        source: The case of `tests.parity` that the checkpoint is made from, "family/case".
        task: The task to export.
        config: Arguments of the reference's config that differ from the source's.
        settings: Whatever else the client's functions want to know.
    """

    name: str
    source: str
    task: str
    config: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> str:
        return self.source.partition("/")[0]


@dataclass
class Found:
    """What a client's answers were.

    Attributes:
        difference: Largest absolute difference from the reference's numbers; None where none were
            compared.
        tolerance: The most that it may be.
        tokens: Generated tokens that were compared, and of them those that are equal; None where
            none were.
        problems: What is wrong, one sentence each. Empty: all is well.
    """

    difference: float | None = None
    tolerance: float = 0.0
    tokens: tuple[int, int] | None = None
    problems: list[str] = field(default_factory=list)


def client(name: str) -> Any:
    """A client's module."""
    if name not in CLIENTS:
        raise SystemExit(f"no client is named {name!r}; there are {', '.join(CLIENTS)}")
    return importlib.import_module(CLIENTS[name])


def chosen(only: list[str]) -> dict[str, list[Case]]:
    """The cases of each client; `only` holds clients and "client/case" names, [] means all."""
    found = {}
    for name in CLIENTS:
        cases = client(name).cases()
        kept = [c for c in cases if not only or name in only or f"{name}/{c.name}" in only]
        if kept:
            found[name] = kept
    if not found:
        raise SystemExit(f"nothing is named {only}; clients: {', '.join(CLIENTS)}")
    return found


def folder_of(out: Path, name: str, case: Case) -> Path:
    """Where a case's `checkpoint` and `export` lie."""
    return out / name / case.name
