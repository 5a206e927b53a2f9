"""Seconds and peak memory of `zoo.from_pretrained`: medians of three processes for each dtype.

    python -m benchmarks.load [DTYPE FOLDER]

The checkpoint, a Llama of 135 M parameters, is written on the fly. Seconds leave out imports;
memory is how far the process' peak rises above what it held before, in multiples of the float32
weights. Clean pages of the mapped file count, though the system may drop them. On a machine that
others use, the processor's seconds say more than the wall's.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import report

DTYPES = ("float32", "bfloat16")
REPEATS = 3
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}


def shapes() -> dict[str, tuple[int, ...]]:
    """The checkpoint's tensors."""
    width, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    kv = width // CONFIG["num_attention_heads"] * CONFIG["num_key_value_heads"]
    found: dict[str, tuple[int, ...]] = {"embed_tokens": (CONFIG["vocab_size"], width)}
    for i in range(CONFIG["num_hidden_layers"]):
        layer = f"layers.{i}"
        for name, rows in (("q_proj", width), ("k_proj", kv), ("v_proj", kv), ("o_proj", width)):
            found[f"{layer}.self_attn.{name}"] = (rows, width)
        found[f"{layer}.mlp.gate_proj"] = found[f"{layer}.mlp.up_proj"] = (inner, width)
        found[f"{layer}.mlp.down_proj"] = (width, inner)
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{layer}.{name}"] = (width,)
    return {f"model.{name}.weight": shape for name, shape in {**found, "norm": (width,)}.items()}


def write(folder: Path, dtype: str) -> None:
    """Writes the checkpoint."""
    from ml_dtypes import bfloat16
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    stored = np.dtype(bfloat16 if dtype == "bfloat16" else np.float32)
    tensors = {
        name: rng.standard_normal(shape, np.float32).astype(stored)
        for name, shape in shapes().items()
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    os.sync()  # else the disk is still busy with it while it is read
    (folder / "config.json").write_text(json.dumps({**CONFIG, "torch_dtype": dtype}))


def measure(dtype: str, folder: str) -> dict[str, Any]:
    """Loads the checkpoint in this process."""
    import zoo.tasks  # noqa: F401
    from zoo import from_pretrained

    import_peak = _peak()
    started, worked = time.perf_counter(), time.process_time()
    model = from_pretrained(folder)
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    growth = _peak() - import_peak
    weights = 4 * model.count_params()
    return {
        "stored as": dtype,
        "parameters": model.count_params(),
        "weights MB": weights / 1e6,
        "seconds": seconds,
        "processor seconds": worked,
        "memory growth / weights": growth / weights,
    }


def in_new_process(dtype: str, folder: str) -> dict[str, Any]:
    """What `measure` finds in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.load", dtype, folder]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def median(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure."""
    return {
        name: statistics.median(row[name] for row in rows) if isinstance(value, float) else value
        for name, value in rows[0].items()
    }


def _peak() -> int:
    """Peak resident bytes of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(*sys.argv[1:3])))
        return
    rows = []
    for dtype in DTYPES:
        with tempfile.TemporaryDirectory(prefix="zoo-bench-") as folder:
            write(Path(folder), dtype)
            rows.append(median([in_new_process(dtype, folder) for _ in range(REPEATS)]))
    report("loading a safetensors folder, to float32", rows)


if __name__ == "__main__":
    main()
