"""Exports each case's checkpoint for its client (the project's environment).

    .venv/bin/python -m tests.interop.export --out build/interop [--only optimum/bert]

A case that cannot be exported leaves `failed.txt` in its folder, which the check reports.
"""

import argparse
import os
import shutil
import sys
import traceback
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from .registry import chosen, client, folder_of

FAILED = "failed.txt"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/interop"))
    parser.add_argument("--only", nargs="*", default=[], help="clients or client/case")
    args = parser.parse_args()
    from zoo.quiet import start_tensorflow

    start_tensorflow()
    count = failed = 0
    for name, cases in chosen(args.only).items():
        for case in cases:
            folder = folder_of(args.out.resolve(), name, case)
            folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(folder / "export", ignore_errors=True)
            (folder / FAILED).unlink(missing_ok=True)
            count += 1
            try:
                client(name).export(case, folder / "checkpoint", folder / "export")
            except Exception as error:
                failed += 1
                (folder / FAILED).write_text(f"{type(error).__name__}: {error}\n")
                print(f"{name}/{case.name}:", file=sys.stderr)
                traceback.print_exc()
    print(f"{count - failed} of {count} exported")


if __name__ == "__main__":
    main()
