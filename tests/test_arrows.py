"""The house: which package may import which, and what stays unloaded until it is needed."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("zoo", "export", "serve")
ARROWS = {"zoo": set(), "serve": set(), "export": {"zoo", "serve"}}

MODEL_CODE = ("ops.py", "layers", "backbones", "families", "heads.py", "tasks.py", "generation.py")
MODEL_IMPORTS = {"keras", "numpy", "pydantic"}
SERVE_IMPORTS = {"numpy", "onnxruntime", "tokenizers", "pydantic"}
SERVE_EXTRAS = {"jinja2", "llguidance", "faiss", "hnswlib"}  # imported where they are used
TERMINAL_IMPORTS = {"click", "rich"}
TERMINAL_ROOM = "serve/commands"
HEAVY = ("tensorflow", "keras", "onnx", "onnxruntime", "tf2onnx", "torch", "jax", "pandas")


def modules(*rooms: str) -> list[Path]:
    found = []
    for room in rooms:
        path = ROOT / room
        found += [path] if path.suffix else sorted(path.rglob("*.py"))
    return [path for path in found if path.is_file()]


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Top-level package and line of every import, those inside functions and by name included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom):
            own = path.relative_to(ROOT).parts[0]
            yield (own if node.level else str(node.module).split(".")[0]), node.lineno
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else None
            name = node.func.id if isinstance(node.func, ast.Name) else name
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value.split(".")[0], node.lineno


def outside(path: Path) -> Iterator[tuple[str, int]]:
    """Imports that are neither the standard library's nor the package's own."""
    own = path.relative_to(ROOT).parts[0]
    for name, line in imports(path):
        if name != own and name not in sys.stdlib_module_names:
            yield name, line


def wrong(paths: list[Path], allowed: set[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in paths
        for name, line in outside(path)
        if name not in allowed
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_along_the_arrows(package: str) -> None:
    paths = modules(package)
    assert paths
    forbidden = set(PACKAGES) - {package} - ARROWS[package]
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in paths
        for name, line in imports(path)
        if name in forbidden
    ]
    assert not found


def test_the_scan_sees_every_form_of_import(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "zoo" / "room.py"
    path.parent.mkdir()
    path.write_text(
        "import a.b\nfrom c.d import e\nfrom . import f\n"
        "def g():\n    import h\n    importlib.import_module('i.j')\n    __import__('k')\n"
    )
    assert {name for name, _ in imports(path)} == {"a", "c", "zoo", "h", "i", "k"}


def test_model_code_is_written_in_keras_alone() -> None:
    paths = modules(*(f"zoo/{room}" for room in MODEL_CODE))
    assert len(paths) > 10
    assert not wrong(paths, MODEL_IMPORTS)


def test_serve_stands_on_four_packages() -> None:
    terminal = modules(TERMINAL_ROOM)
    others = [path for path in modules("serve") if path not in terminal]
    assert not wrong(others, SERVE_IMPORTS | SERVE_EXTRAS)
    assert not wrong(terminal, SERVE_IMPORTS | SERVE_EXTRAS | TERMINAL_IMPORTS)


def run_clean(code: str) -> list[str]:
    """Runs `code` in a fresh process; returns the heavy packages that it loaded."""
    report = f"import json, sys\nprint(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_starts_no_framework(package: str) -> None:
    assert run_clean(f"import {package}") == []


def test_all_of_serve_runs_without_a_framework() -> None:
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in modules("serve")]
    imported = "\n".join(f"import {name.removesuffix('.__init__')}" for name in names)
    loaded = run_clean(f"{imported}\nfrom serve import *")
    assert not set(loaded) - {"onnxruntime"}


def test_help_starts_no_framework() -> None:
    code = (
        "import runpy, sys\nsys.argv = ['zoo', '--help']\n"
        "try:\n    runpy.run_module('zoo', run_name='__main__')\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
    )
    assert run_clean(code) == []
