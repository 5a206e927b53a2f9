"""Seconds and peak memory of `export.to_onnx`, each size in a process of its own.

python -m benchmarks.export [SIZE]
"""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import report
from benchmarks.sizes import SIZES


def measure(name: str) -> dict[str, Any]:
    """Exports one size in this process; seconds leave out imports and building the model."""
    import export.bundle
    from benchmarks.sizes import build

    folder = Path(tempfile.mkdtemp(prefix="zoo-bench-"))
    imported = peak()
    model = build(name)
    built = peak()
    weights = 4 * model.count_params()
    try:
        started = time.perf_counter()
        export.bundle.to_onnx(model, folder / "bundle", verify=False)
        seconds = time.perf_counter() - started
        most = peak()
        started = time.perf_counter()
        export.bundle.to_onnx(model, folder / "verified")
        verified = time.perf_counter() - started
        size = sum(p.stat().st_size for p in (folder / "bundle").iterdir())
    finally:
        shutil.rmtree(folder)
    return {
        "size": name,
        "weights MB": weights / 1e6,
        "export s": seconds,
        "with verification s": verified,
        "peak / weights": (most - imported) / weights,
        "peak of building / weights": (built - imported) / weights,
        "bundle MB": size / 1e6,
    }


def peak() -> int:
    """Peak resident bytes of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
        return
    rows = []
    for name in SIZES:
        command = [sys.executable, "-m", "benchmarks.export", name]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows.append(json.loads(output.splitlines()[-1]))
    report("export to ONNX, target onnxruntime, float32", rows)


if __name__ == "__main__":
    main()
