"""One engine with one model, told on standard input what to do: prints the seconds it took.

    python -m benchmarks.references.worker ENGINE FOLDER

Runs in the engine's own environment and imports nothing of this project but what stands beside it
and, for `ours`, what answers requests. A line is a method of the engine and its whole numbers, such
as `encode 8 128`.
"""

import importlib
import sys
import time

ENGINES = {
    "ours-encoder": "ours:Encoder",
    "ours": "ours:Writer",
    "optimum-encoder": "with_optimum:Encoder",
    "optimum-translator": "with_optimum:Translator",
    "ctranslate2-encoder": "with_ctranslate2:Encoder",
    "ctranslate2": "with_ctranslate2:Writer",
    "ctranslate2-translator": "with_ctranslate2:Translator",
    "genai": "with_genai:Writer",
}
WARMED = ("encode",)
"""Short work, done once before it is measured: the other engines have filled the caches since."""


def main() -> None:
    module, _, name = ENGINES[sys.argv[1]].partition(":")
    engine = getattr(importlib.import_module(f"benchmarks.references.{module}"), name)(sys.argv[2])
    print("ready", flush=True)
    for line in sys.stdin:
        command, *numbers = line.split()
        work = getattr(engine, command)
        if command in WARMED:
            work(*map(int, numbers))
        started = time.perf_counter()
        own = work(*map(int, numbers))
        print(time.perf_counter() - started if own is None else own, flush=True)


if __name__ == "__main__":
    main()
