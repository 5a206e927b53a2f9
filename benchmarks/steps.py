"""Where the time of a step goes: the graph's run and its operators, the choice of tokens, the rest
of Python; and what the machine's memory would allow.

    python -m benchmarks.steps [--steps N]

Steps are timed in the engine that all of `serve` writes with; operators in a second engine, whose
sessions ONNX Runtime profiles: every run takes a little longer there. The bound is the bytes that a
step has to read, weights and keys and values, over what two threads read of arrays that no cache
holds.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.beside import engines
from benchmarks.references import work
from benchmarks.report import report

PROMPT = 128
TOP = 8  # operators that are named
LOOK_UPS = ("Gather", "GatherBlockQuantized")  # read a row of their table


class Case(NamedTuple):
    """A step to look into.

    Attributes:
        size: A name in `benchmarks.sizes.SIZES`.
        precision: Of the export.
        batch: Requests that step together.
        beams: Rows of each.
    """

    size: str
    precision: str
    batch: int
    beams: int = 1

    @property
    def name(self) -> str:
        beams = f" x {self.beams} beams" if self.beams > 1 else ""
        return f"{self.size} {self.precision}, {self.batch}{beams}"


CASES = (
    Case("llama-135m", "float32", 1),
    Case("llama-135m", "int8-int4", 1),
    Case("llama-135m", "int8-int4", 16),
    Case("t5-small", "int8", 1),
    Case("t5-small", "int8", 8),
    Case("t5-small", "int8", 8, 4),
)


class Steps:
    """Requests of one length that step together, behind their prompts.

    Args:
        bundle: The bundle.
        case: What to run.
        count: Steps.
        profile: Begin of the names of ONNX Runtime's profiles; None: none.

    Attributes:
        session: The session that steps.
        bytes: What a step reads in the middle of them, at least.
    """

    def __init__(self, bundle: Path, case: Case, count: int, profile: Path | None = None) -> None:
        from serve.decoding.generator import Generator
        from serve.runtime.session import SessionOptions

        begin = None if profile is None else str(profile)
        generator = Generator(bundle, SessionOptions(threads=work.THREADS, profile=begin))
        length = PROMPT if generator.encoder is None else work.SOURCE[1]
        new = count + 2 * case.batch + 8  # prompts are read in several goes, with steps between
        exactly = {"max_new_tokens": new, "min_new_tokens": new, "num_beams": case.beams}
        ids = work.ids(case.batch, length).tolist()
        requests = generator.requests(ids, generator.settings(**exactly))
        self.count = count
        self.engine = generator.engine_for(requests)
        self.tickets = [self.engine.submit(request) for request in requests]
        while self.engine.running < case.batch:
            self.engine.advance()
        self._runs: Counter[int] = Counter()
        self._seconds: dict[str, float] = {}
        sessions = [generator.decoder]
        if generator.reader is not generator.decoder:
            sessions.append(generator.reader)
        for session in sessions:
            session.runtime.run_with_iobinding = self._timed(
                "graph", session.runtime.run_with_iobinding, id(session)
            )
        for ticket in self.tickets:
            ticket.search.advance = self._timed("choice", ticket.search.advance)
        self.engine.advance()
        self.session = max(sessions, key=lambda session: self._runs[id(session)])
        self.others = [session for session in sessions if session is not self.session]
        self.bytes = read_bytes(self.session.path) + self._cache_bytes(generator, length)

    def measure(self) -> dict[str, float]:
        """Median milliseconds of the parts of a step and of the whole."""
        rows = []
        for _ in range(self.count):
            self._seconds = {"graph": 0.0, "choice": 0.0}
            started = time.perf_counter()
            self.engine.advance()
            whole = time.perf_counter() - started
            rows.append((whole, *self._seconds.values()))
        whole, graph, choice = (
            1e3 * statistics.median(column) for column in zip(*rows, strict=True)
        )
        return {"graph": graph, "choice": choice, "rest": whole - graph - choice, "step": whole}

    def operators(self) -> dict[str, float]:
        """Milliseconds of a step's operators by type, largest first."""
        for _ in range(self.count):
            self.engine.advance()
        for session in self.others:
            Path(session.runtime.end_profiling()).unlink()
        path = Path(self.session.runtime.end_profiling())
        events = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        runs = sorted(event["ts"] for event in events if event["name"] == "model_run")
        totals: Counter[str] = Counter()
        for event in events:
            kernel = event["cat"] == "Node" and event["name"].endswith("_kernel_time")
            if kernel and event["ts"] >= runs[-self.count]:
                totals[event["args"]["op_name"]] += event["dur"]
        return {name: total / 1e3 / self.count for name, total in totals.most_common()}

    def _timed(self, part: str, call: Callable[..., Any], session: int = 0) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            result = call(*args, **kwargs)
            passed = time.perf_counter() - started
            self._seconds[part] = self._seconds.get(part, 0.0) + passed
            self._runs[session] += 1
            return result

        return timed

    def _cache_bytes(self, generator: Any, length: int) -> int:
        """Keys and values that are valid in the middle of the steps, and the encoder's."""
        cache = self.engine.cache
        positions = int(cache.lengths[: cache.rows].sum()) + cache.rows * self.count // 2
        memory = [
            tensor.shape[1] * tensor.shape[3] * tensor.dtype.itemsize
            for name, tensor in generator.decoder.inputs.items()
            if ".encoder." in name
        ]
        return positions * cache.position_bytes + len(self.tickets) * length * sum(memory)


def read_bytes(graph: Path) -> int:
    """Bytes of the weights that a run reads whole: all but tables that rows are looked up in."""
    import onnx

    proto = onnx.load(graph, load_external_data=False).graph
    used = {name for node in proto.node if node.op_type not in LOOK_UPS for name in node.input}
    total = 0
    for tensor in proto.initializer:
        if tensor.name in used:
            size = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
            total += int(np.prod(tensor.dims)) * size
    return total


def bandwidth() -> float:
    """Bytes per second that two threads read."""
    arrays = [np.ones(1 << 26, "float32") for _ in range(work.THREADS)]
    times = []
    with ThreadPoolExecutor(work.THREADS) as pool:
        for _ in range(9):
            started = time.perf_counter()
            list(pool.map(np.max, arrays))
            times.append(time.perf_counter() - started)
    return sum(array.nbytes for array in arrays) / statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=32)
    count = parser.parse_args().steps
    rate = bandwidth()
    parts: list[dict[str, Any]] = []
    operators: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="zoo-steps-") as folder:
        made: dict[tuple[str, str], Path] = {}
        for case in CASES:
            key = (case.size, case.precision)
            if key not in made:
                made[key] = bundle(Path(folder) / "-".join(key), *key)
            plain = Steps(made[key], case, count)
            bound = {"read MB": plain.bytes / 1e6, "at the memory's rate": 1e3 * plain.bytes / rate}
            parts.append({"ms": case.name} | plain.measure() | bound)
            del plain
            found = Steps(made[key], case, count, Path(folder) / "profile").operators()
            for name, value in found.items():
                operators.setdefault(name, {})[case.name] = value
    report(f"parts of a step; the memory gives {rate / 1e9:.0f} GB/s", parts)
    report("operators of a step, profiled", largest(operators))


def largest(operators: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """A row for each operator that takes much of a step, and one for the others."""
    names = sorted(operators, key=lambda name: -max(operators[name].values()))
    rows = [(name, operators[name]) for name in names[:TOP]]
    others: Counter[str] = Counter()
    for name in names[TOP:]:
        others.update(operators[name])
    rows.append(("others", dict(others)))
    order = [case.name for case in CASES]
    return [{"ms": name} | {case: found.get(case) for case in order} for name, found in rows]


def bundle(folder: Path, size: str, precision: str) -> Path:
    """A bundle of a size, made in a process of its own."""
    from benchmarks.sizes import SIZES

    source = engines.checkpoint(size, folder / "checkpoint")
    engines.export(source, SIZES[size]["task"], folder / "bundle", precision)
    return folder / "bundle"


if __name__ == "__main__":
    main()
