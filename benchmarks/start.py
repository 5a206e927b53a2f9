"""How soon `serve` is there: its import, and from nothing to the first token of a decoder of 135 M.

    python -m benchmarks.start

Each time is that of a process of its own, from its start to its end, less that of one which does
nothing; the disk is warm from the bundle's export.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.beside import engines
from benchmarks.report import report

REPEATS = 5
KINDS = ("float32", "int8-int4")
FIRST = (
    "import sys, serve\n"
    "answer = serve.load(sys.argv[1]).stream('w100 w200 w300', min_new_tokens=4)\n"
    "assert next(answer)\n"
    "assert 'tensorflow' not in sys.modules"
)


def seconds(code: str, *words: str) -> float:
    """Median seconds of a process."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code, *words], check=True, cwd=engines.ROOT)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    nothing = seconds("pass")
    rows = [{"work": "import serve", "seconds": seconds("import serve") - nothing}]
    with tempfile.TemporaryDirectory(prefix="zoo-start-") as folder:
        source = engines.checkpoint("llama-135m", Path(folder) / "llama")
        for kind in KINDS:
            bundle = Path(folder) / kind
            engines.export(source, "text-generation", bundle, kind)
            found = seconds(FIRST, str(bundle)) - nothing
            rows.append({"work": f"first token, {kind}", "seconds": found})
    report("start of serve, 135 M decoder", rows)


if __name__ == "__main__":
    main()
