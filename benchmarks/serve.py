"""Tokens per second of `serve` in float32: encoding, prefill and decoding, translating; each size
in a process of its own.

    python -m benchmarks.serve [SIZE BUNDLE]

The first process exports the bundles; those that measure have no TensorFlow.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import report
from benchmarks.sizes import SIZES

REPEATS = 5
SHAPES = ((1, 128), (8, 128), (16, 32))
PROMPT, NEW = 128, 64
BEAMS, BATCHES = (1, 4), (1, 8)
SOURCE = TARGET = 40


def seconds_of(work: Callable[[], Any]) -> float:
    """Median seconds of `work`, after one call to warm up."""
    work()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def measure_encoder(bundle: str) -> list[dict[str, Any]]:
    from serve.runtime.session import Session

    session = Session(Path(bundle) / "model.onnx")
    rng = np.random.default_rng(0)
    rows = []
    for batch, length in SHAPES:
        ids = rng.integers(1, 30000, (batch, length))
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        feeds["token_type_ids"] = np.zeros_like(ids)
        seconds = seconds_of(lambda feeds=feeds: session.run(feeds))
        rows.append({"work": f"encode {batch} x {length}", "tokens/s": batch * length / seconds})
    return rows


def measure_decoder(bundle: str) -> list[dict[str, Any]]:
    """Through the engine, a request at a time."""
    generator, loading = opened(bundle)
    prompt = np.random.default_rng(0).integers(5, 30000, PROMPT).tolist()

    def begin() -> Any:
        settings = generator.settings(max_new_tokens=NEW + 1, min_new_tokens=NEW + 1)
        (request,) = generator.requests([prompt], settings)
        engine = generator.engine_for([request])
        engine.submit(request)
        engine.advance()  # reads the prompt and chooses the first token
        return engine

    def decode() -> None:
        engine = begin()
        started = time.perf_counter()
        for _ in range(NEW):
            engine.advance()
        steps.append((time.perf_counter() - started) / NEW)

    prefill = seconds_of(begin)
    steps: list[float] = []
    seconds_of(decode)
    return [
        {"work": f"prefill 1 x {PROMPT}", "tokens/s": PROMPT / prefill},
        {"work": f"decode 1 x {NEW} after {PROMPT}", "tokens/s": 1 / statistics.median(steps)},
        {"work": "load the bundle", "seconds": loading},
    ]


def measure_translator(bundle: str) -> list[dict[str, Any]]:
    """Texts of one length, all at once."""
    generator, loading = opened(bundle)
    rows: list[dict[str, Any]] = [{"work": "load the bundle", "seconds": loading}]
    for beams in BEAMS:
        for batch in BATCHES:
            ids = np.random.default_rng(0).integers(5, 30000, (batch, SOURCE)).tolist()
            exactly = {"max_new_tokens": TARGET, "min_new_tokens": TARGET}
            settings = generator.settings(num_beams=beams, **exactly)
            seconds = seconds_of(
                lambda ids=ids, settings=settings: generator.generate_ids(ids, settings)
            )
            name = f"translate {batch} x {SOURCE}, beams {beams}"
            rows.append({"work": name, "tokens/s": batch * TARGET / seconds})
    return rows


def opened(bundle: str) -> tuple[Any, float]:
    """A generator, and the seconds that opening it took."""
    from serve.decoding.generator import Generator

    started = time.perf_counter()
    generator = Generator(bundle)
    return generator, time.perf_counter() - started


MEASURES = {
    "feature-extraction": measure_encoder,
    "text-generation": measure_decoder,
    "text2text-generation": measure_translator,
}


def main() -> None:
    if len(sys.argv) > 1:
        size, bundle = sys.argv[1:3]
        rows = MEASURES[SIZES[size]["task"]](bundle)
        assert "tensorflow" not in sys.modules
        print(json.dumps(rows))
        return
    with tempfile.TemporaryDirectory(prefix="zoo-bench-") as folder:
        rows = []
        for size in SIZES:
            bundle = str(Path(folder) / size)
            code = (
                "import sys; from benchmarks.sizes import build; import export; "
                "export.to_onnx(build(sys.argv[1]), sys.argv[2], verify=False)"
            )
            subprocess.run([sys.executable, "-c", code, size, bundle], check=True)
            command = [sys.executable, "-m", "benchmarks.serve", size, bundle]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            rows += [{"size": size, **row} for row in json.loads(output.splitlines()[-1])]
    report("answers from serve, float32, ONNX Runtime on the CPU", rows)


if __name__ == "__main__":
    main()
