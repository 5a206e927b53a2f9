"""This project beside Optimum, CTranslate2 and onnxruntime-genai: the same weights, one run.

    python -m benchmarks.versus [encode | decode | seq2seq | batch | lookup] [--rounds N]

Every engine is a process of its own, which the others wait for: they take turns, and the ratios are
of medians over the turns. `make versus` sets up the references' environments first.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.beside import batch, decode, encode, lookup, seq2seq

WORKS = {
    "encode": encode.run,
    "decode": decode.run,
    "seq2seq": seq2seq.run,
    "batch": batch.run,
    "lookup": lookup.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("work", nargs="?", choices=list(WORKS), default=None)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    for name, run in WORKS.items():
        if options.work in (None, name):
            with tempfile.TemporaryDirectory(prefix="zoo-versus-") as folder:
                run(Path(folder), options.rounds)


if __name__ == "__main__":
    main()
