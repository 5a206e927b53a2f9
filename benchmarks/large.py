"""Models whose float32 weights pass 2 GB, the most that one protobuf message holds: seconds and
peak memory of their export, verified through `serve`, each in a process of its own.

    python -m benchmarks.large [MODEL FOLDER]

One has a table beyond 2 GB, the other many matrices. Fails where a bundle is not right, or its
export takes more than 8 GB or 60 seconds. Needs 2.4 GB of disk.
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.export import peak
from benchmarks.report import report

LIMIT = 2**31
"""Bytes of the largest protobuf message, and one."""
MOST_MEMORY, MOST_SECONDS = 8e9, 60.0
MODELS: dict[str, dict[str, Any]] = {
    "one table": {
        "task": "sentence-similarity",
        "config": {
            "vocab_size": 262_400,
            "hidden_dim": 2048,
            "num_layers": 2,
            "num_heads": 16,
            "intermediate_dim": 2048,
            "max_length": 512,
        },
    },
    "many matrices": {
        "task": "text-generation",
        "config": {
            "vocab_size": 32_000,
            "hidden_dim": 2048,
            "num_layers": 11,
            "num_heads": 16,
            "num_kv_heads": 4,
            "intermediate_dim": 5632,
            "max_length": 512,
            "norm": "rms",
            "positions": "rotary",
            "activation": "silu",
            "gated": True,
            "attention_bias": False,
            "projection_bias": False,
        },
    },
}


def build(name: str) -> Any:
    """The model, its weights drawn in pieces: Keras' own start would take several times them."""
    import zoo
    from zoo.checkpoints.deferred import set_value, without_values

    task, config = MODELS[name]["task"], MODELS[name]["config"]
    cls = zoo.DecoderConfig if task == "text-generation" else zoo.EncoderConfig
    with without_values() as waiting:
        model = zoo.TaskModel(cls(**config), task)
    rng = np.random.default_rng(0)
    for variable in waiting:
        value = np.ones(variable.shape, "float32")
        if value.ndim > 1:
            for at in range(0, len(value), 1 << 14):
                rows = value[at : at + (1 << 14)]
                rng.standard_normal(out=rows, dtype="float32")
                rows *= 0.02
        set_value(variable, value)
    return model


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Builds, exports and verifies a model in this process."""
    import export.bundle

    model = build(name)
    weights = sum(4 * math.prod(variable.shape) for variable in model.weights)
    assert weights > LIMIT, weights
    built = peak()
    started = time.perf_counter()
    manifest = export.bundle.to_onnx(model, folder / "bundle")
    return {
        "model": name,
        "weights GB": weights / 1e9,
        "tensor GB": max(4 * math.prod(v.shape) for v in model.weights) / 1e9,
        "export s": time.perf_counter() - started,
        "peak GB": peak() / 1e9,
        "building GB": built / 1e9,
        "bundle GB": sum(spec.bytes for spec in manifest.files.values()) / 1e9,
        "difference": manifest.verification["largest"],
    }


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
        return
    rows = []
    for name in MODELS:
        with tempfile.TemporaryDirectory(prefix="zoo-large-") as folder:
            command = [sys.executable, "-m", "benchmarks.large", name, folder]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows.append(json.loads(output.splitlines()[-1]))
    report("export of weights beyond 2 GB, target onnxruntime, float32, verified", rows)
    wrong = [
        f"{row['model']}: {row[column]:.3g} {column.split()[-1]}, expected at most {most:g}"
        for row in rows
        for column, most in (("peak GB", MOST_MEMORY / 1e9), ("export s", MOST_SECONDS))
        if row[column] > most
    ]
    if wrong:
        raise SystemExit("; ".join(wrong))


if __name__ == "__main__":
    main()
