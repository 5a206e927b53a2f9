"""Steady memory: requests of random lengths and settings through one engine, and what the process
holds of memory meanwhile.

    python -m benchmarks.soak [--requests 10000]

The first process exports tiny models; those that answer have no TensorFlow. Fails where a process
ends more than 5 % above what it held after the first tenth of its requests.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import report

VOCABULARY, POSITIONS, SLOTS = 512, 128, 8
LONGEST, MOST_NEW = 64, 32
PREFIXES = 1 << 20  # bytes of prompts' beginnings that are kept
ALLOWED = 1.05
KINDS = ("decoder", "encoder-decoder")
MIXED: tuple[tuple[float, dict[str, Any]], ...] = (
    (0.6, {}),
    (0.2, {"do_sample": True, "top_p": 0.9, "temperature": 1.5}),
    (0.1, {"num_beams": 3, "no_repeat_ngram_size": 2}),
    (0.1, {"prompt_lookup": 4, "logprobs": 2}),
)
"""Shares of the requests, and their settings."""


def build(kind: str, folder: str) -> None:
    """Exports a tiny model of a kind."""
    import export
    import zoo

    facts: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_dim": 64,
        "num_layers": 2,
        "num_heads": 4,
        "max_length": POSITIONS,
        "initializer_range": 0.2,
    }
    if kind == "decoder":
        model = zoo.TaskModel(zoo.DecoderConfig(**facts), "text-generation")
    else:
        model = zoo.TaskModel(zoo.EncoderDecoderConfig(**facts), "text2text-generation")
    export.to_onnx(model, folder, verify=False)


def measure(folder: str, count: int) -> list[dict[str, Any]]:
    """Answers `count` requests; a row for each tenth of them."""
    from serve.decoding.engine import Engine
    from serve.decoding.generator import Generator
    from serve.decoding.request import Request

    generator = Generator(folder, prefix_cache=PREFIXES)
    engine = Engine(generator, SLOTS, POSITIONS)
    rng = np.random.default_rng(0)
    shares = np.array([share for share, _ in MIXED])

    def request(number: int) -> Request:
        settings = MIXED[rng.choice(len(MIXED), p=shares)][1]
        new = int(rng.integers(1, MOST_NEW + 1))
        ids = rng.integers(0, VOCABULARY, int(rng.integers(1, LONGEST + 1))).tolist()
        return Request(ids, generator.settings(max_new_tokens=new, seed=number, **settings))

    rows, sent, ended, tokens = [], 0, 0, 0
    started = time.perf_counter()
    while ended < count:
        while sent < count and engine.waiting < SLOTS:
            engine.submit(request(sent))
            sent += 1
        for event in engine.advance():
            tokens += event.token is not None
            if event.token is None:
                ended += 1
                if ended % (count // 10) == 0:
                    seconds = time.perf_counter() - started
                    row = {"requests": ended, "tokens": tokens, "seconds": seconds}
                    rows.append({**row, "resident MB": resident() / 1e6})
    return rows


def resident() -> int:
    """Bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", nargs="?")
    parser.add_argument("--requests", type=int, default=10_000)
    options = parser.parse_args()
    if options.bundle:
        print(json.dumps(measure(options.bundle, options.requests)))
        assert "tensorflow" not in sys.modules
        return
    rows, worst = [], 0.0
    for kind in KINDS:
        with tempfile.TemporaryDirectory(prefix="zoo-soak-") as folder:
            bundle = str(Path(folder) / "bundle")
            code = "import sys; from benchmarks.soak import build; build(*sys.argv[1:])"
            subprocess.run([sys.executable, "-c", code, kind, bundle], check=True)
            command = [sys.executable, "-m", "benchmarks.soak", bundle]
            command += ["--requests", str(options.requests)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found = json.loads(output.splitlines()[-1])
        growth = found[-1]["resident MB"] / found[0]["resident MB"]
        worst = max(worst, growth)
        rows += [{"model": kind, **row} for row in found]
        rows[-1]["after / before"] = growth
    report("requests of random lengths and settings through one engine", rows)
    if worst > ALLOWED:
        raise SystemExit(f"resident memory grew to {worst:.3f} times, allowed {ALLOWED}")


if __name__ == "__main__":
    main()
