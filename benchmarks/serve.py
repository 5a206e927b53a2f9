"""Tokens per second of `serve` in float32: encoding, prefill and decoding, each size in a process
of its own.

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
    from serve.decoding.generator import Generator

    started = time.perf_counter()
    generator = Generator(bundle)
    loading = time.perf_counter() - started
    prompt = np.random.default_rng(0).integers(1, 49000, PROMPT).tolist()
    prefill = seconds_of(lambda: generator.start([prompt], [prompt], NEW))

    def decode() -> None:
        decoding, logits = generator.start([prompt], [prompt], NEW)
        started = time.perf_counter()
        for _ in range(NEW):
            logits = decoding.step(logits.argmax(axis=-1))
        steps.append((time.perf_counter() - started) / NEW)

    steps: list[float] = []
    seconds_of(decode)
    return [
        {"work": f"prefill 1 x {PROMPT}", "tokens/s": PROMPT / prefill},
        {"work": f"decode 1 x {NEW} after {PROMPT}", "tokens/s": 1 / statistics.median(steps)},
        {"work": "load the bundle", "seconds": loading},
    ]


def main() -> None:
    if len(sys.argv) > 1:
        size, bundle = sys.argv[1:3]
        decoder = SIZES[size]["task"] == "text-generation"
        rows = measure_decoder(bundle) if decoder else measure_encoder(bundle)
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
