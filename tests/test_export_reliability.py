"""Exports by processes that are stopped, killed, run out of disk, or meet each other."""

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny

import export
from export.staging import staged
from serve.bundle.manifest import Manifest

NAME = "encoder/sinusoidal"
TWO_GRAPHS = "encoder-decoder/sinusoidal-postnorm"
PATIENCE = 250
"""Seconds after which a process that says nothing is given up, on a machine that does much else."""
TESTS = Path(__file__).parent
STAGES = ("converting model", "writing model", "computing reference values in Keras",
          "verifying through serve")  # fmt: skip

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="these processes are forked")


class Worker:
    """Children of one process, which has another hash seed and another working folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        settings = {"PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(
            [sys.executable, str(TESTS / "export_worker.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            cwd=folder, env={**os.environ, **settings},
        )  # fmt: skip

    def start(self, out: Any, **task: Any) -> "Child":
        """Begins an export; the worker itself does not wait for it if a stage to stop at is given.

        `out` is relative to the worker's own folder, or absolute.
        """
        self.count += 1
        log, go = (self.folder / f"{self.count}.{kind}" for kind in ("log", "go"))
        task = {"model": NAME, "out": str(out), "log": str(log), "go": str(go), **task}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        return Child(self, log, go, int(self.line()))

    def line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the worker ended"
        return line


class Child:
    def __init__(self, worker: Worker, log: Path, go: Path, pid: int) -> None:
        self.worker, self.log, self.go, self.pid = worker, log, go, pid

    def reaches(self, stage: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while stage not in self.said():
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.01)

    def said(self) -> list[str]:
        return self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []

    def code(self) -> int:
        """Its exit status; -9 where it was killed."""
        return int(self.worker.line())


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    made = Worker(tmp_path_factory.mktemp("worker"))
    yield made
    assert made.process.stdin is not None
    made.process.stdin.close()
    made.process.wait(60)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "place" / "bundle"


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def sums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# --- interrupted ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code", "stage"),
    [
        (signal.SIGINT, 130, STAGES[1]),
        (signal.SIGTERM, 143, STAGES[2]),
        (signal.SIGHUP, 129, STAGES[3]),
    ],
    ids=str,
)
def test_signals_leave_nothing(number, code, stage, worker, out) -> None:
    child = worker.start(out, stop=stage)
    child.reaches(stage)
    assert len(entries(out.parent)) == 1
    os.kill(child.pid, number)
    assert child.code() == code
    assert entries(out.parent) == []


def test_a_signal_keeps_what_was_to_be_replaced(worker, out) -> None:
    out.mkdir(parents=True)
    (out / "mine").write_text("kept")
    child = worker.start(out, stop=STAGES[3], overwrite=True)
    child.reaches(STAGES[3])
    os.kill(child.pid, signal.SIGTERM)
    assert child.code() == 143
    assert entries(out.parent) == ["bundle"]
    assert entries(out) == ["mine"]


def test_handlers_of_the_caller_stay(out) -> None:
    """Who handles SIGTERM already keeps doing so; afterwards all is as before."""
    met: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: met.append(number))
    try:
        with staged(out) as folder:
            (folder / "file").write_text("x")
            signal.raise_signal(signal.SIGTERM)
        assert met == [signal.SIGTERM]
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with staged(out, overwrite=True) as folder:
            assert callable(signal.getsignal(signal.SIGTERM))
            (folder / "file").write_text("x")
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert entries(out.parent) == ["bundle"]


def test_what_a_killed_export_left_goes_with_the_next(worker, out) -> None:
    child = worker.start(out, stop=STAGES[3])
    child.reaches(STAGES[3])
    os.kill(child.pid, signal.SIGKILL)
    assert child.code() == -signal.SIGKILL
    assert [name.endswith(".partial") for name in entries(out.parent)] == [True]
    with staged(out.parent / "bund") as folder:  # another's name begins alike: none of its business
        (folder / "file").write_text("x")
    assert len(entries(out.parent)) == 2
    with staged(out) as folder:
        assert entries(out.parent) == sorted([folder.name, "bund"])
        (folder / "file").write_text("x")
    assert entries(out.parent) == ["bund", "bundle"]


def test_a_kill_between_two_renames_loses_nothing(worker, out) -> None:
    """The old bundle is out of the way and the new one not yet in its place."""
    out.mkdir(parents=True)
    (out / "mine").write_text("kept")
    task = {"overwrite": True, "dies between renames": True}
    assert worker.start(out, **task).code() == -signal.SIGKILL
    assert "bundle" not in entries(out.parent)
    with pytest.raises(export.ExportError, match="exists already"), staged(out):
        pass
    assert entries(out.parent) == ["bundle"]
    assert entries(out) == ["mine"]


# --- two at once ----------------------------------------------------------------------------------


def fails(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(export.ExportError, match=message):
        call()


@pytest.mark.parametrize("overwrite", [False, True])
def test_who_comes_second_is_told_at_once(overwrite, worker, out) -> None:
    child = worker.start(out, stop=STAGES[1], overwrite=overwrite, wait=False)
    child.reaches(STAGES[1])
    model = tiny.model(NAME)
    message = "another export is writing .*bundle at this moment"
    fails(lambda: export.to_onnx(model, out, overwrite=overwrite), message)
    fails(lambda: export.to_saved_model(model, out, overwrite=overwrite), message)
    child.go.touch()
    child.reaches("done")
    assert Manifest.load(out, check="full").task == tiny.task_of(NAME)
    assert entries(out.parent) == ["bundle"]


def test_of_two_that_start_together_one_wins(worker, out) -> None:
    children = [worker.start(out, wait=False) for _ in range(2)]
    deadline = time.monotonic() + PATIENCE
    ends: list[str] = []
    while len(ends) < len(children):
        ends = [
            line for c in children for line in c.said() if line.split(":")[0] in ("done", "refused")
        ]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert ends.count("done") == 1
    for line in ends:
        assert line == "done" or "another export is writing" in line or "exists already" in line
    Manifest.load(out, check="full")
    assert entries(out.parent) == ["bundle"]


# --- a full disk ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("to", "most"), [("onnx", 4_000), ("saved_model", 10_000)])
def test_a_full_disk_is_named(to, most, worker, out) -> None:
    """No file may grow beyond a limit."""
    child = worker.start(out, to=to, most=most)
    assert child.code() == 0
    (end,) = [line for line in child.said() if line.startswith(("refused", "done"))]
    assert end == f"refused: cannot write {out}: File too large"
    assert entries(out.parent) == []


# --- reproducible ---------------------------------------------------------------------------------


def test_another_process_writes_the_same_bytes(worker, out) -> None:
    """Another hash seed, another working folder, and a relative path with another name."""
    child = worker.start("elsewhere/another", model=TWO_GRAPHS)
    assert child.code() == 0
    assert child.said()[-1] == "done"
    export.to_onnx(tiny.model("encoder/alibi"), out.parent / "before", verify=False)
    export.to_onnx(tiny.model(TWO_GRAPHS), out, name="bundle")
    made = sums(out)
    assert made == sums(worker.folder / "elsewhere" / "another")
    assert {"encoder.onnx", "decoder.onnx", "model.onnx.data", "manifest.json"} <= set(made)


# --- each weight once -----------------------------------------------------------------------------


def test_what_graphs_share_is_stored_once(out) -> None:
    """The data file is as long as the model's weights, though both graphs hold the embedding and
    the head is the embedding too.
    """
    model = tiny.model(TWO_GRAPHS)
    manifest = export.to_onnx(model, out, verify=False)
    sizes = [4 * math.prod(weight.shape) for weight in model.weights]
    weights = sum(size for size in sizes if size >= 1024)
    tables = 4 * 24 * (40 + 33)  # sinusoids of both sides
    found = manifest.files["model.onnx.data"].bytes
    assert weights <= found <= weights + tables + 64 * (len(model.weights) + 2)
    both = sum(spec.parameters for spec in manifest.graphs.values())
    assert both >= model.count_params() + 37 * 24


# --- beyond 2 GB ----------------------------------------------------------------------------------


@pytest.mark.skipif(os.environ.get("ZOO_LARGE") != "1", reason="takes a minute, 8 GB and 2.4 GB")
@pytest.mark.timeout(600)
def test_weights_beyond_2_gb_are_exported() -> None:
    """Within 8 GB of memory and a minute, or the benchmark fails."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.large"],
        cwd=TESTS.parent, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for row in json.loads(done.stdout.splitlines()[-1])["rows"]:
        assert row["weights GB"] > 2**31 / 1e9
        assert row["difference"] < 1e-3
