"""Makes each case's checkpoint with transformers (clients' environment).

.venv-interop/bin/python -m tests.interop.checkpoints --out build/interop [--only optimum/bert]
"""

import argparse
import dataclasses
import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from tests.parity.cases import all_cases
from tests.parity.reference import make_folder

from .registry import chosen, folder_of


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/interop"))
    parser.add_argument("--only", nargs="*", default=[], help="clients or client/case")
    args = parser.parse_args()
    sources = {case.folder: case for case in all_cases()}
    count, failed = 0, []
    for name, cases in chosen(args.only).items():
        for case in cases:
            source = sources[case.source]
            folder = folder_of(args.out, name, case) / "checkpoint"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            merged = dataclasses.replace(source, config={**source.config, **case.config})
            try:
                make_folder(merged, folder)
            except Exception as error:
                failed.append(f"{name}/{case.name}: {type(error).__name__}: {error}")
            count += 1
    for line in failed:
        print(line, file=sys.stderr)
    print(f"{count - len(failed)} of {count} checkpoints made")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
