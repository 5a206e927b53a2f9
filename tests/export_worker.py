"""A process that exports in children of its own, as `tests/test_export_reliability.py` tells it.

Each line of standard input is a JSON object; a child is forked for it once TensorFlow is imported
and before it has run anything. The child writes a line for each stage of its export and waits at
the stage named "stop" until the file "go" is there.
"""

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import tiny

import export


def work(task: dict[str, Any]) -> None:
    """One export; the answer stands in the file "log", a line for each stage and for the end."""
    log = Path(task["log"]).open("w", buffering=1, encoding="utf-8")  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def progress(stage: str) -> None:
        print(stage, file=log)
        if stage == task.get("stop"):
            while not Path(task["go"]).exists():
                time.sleep(0.01)

    if "most" in task:
        resource.setrlimit(resource.RLIMIT_FSIZE, (task["most"], task["most"]))
    if task.get("dies between renames"):
        rename = Path.rename

        def dying(self: Path, target: Path) -> Path:
            if self.suffix == ".partial":
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(self, target)

        Path.rename = dying  # type: ignore[method-assign]
    call = {"onnx": export.to_onnx, "saved_model": export.to_saved_model}[task.get("to", "onnx")]
    settings = {"overwrite": task.get("overwrite", False), "progress": progress}
    if call is export.to_onnx:
        settings["name"] = "bundle"
    try:
        call(tiny.model(task["model"]), task["out"], **settings)
        print("done", file=log)
    except export.ExportError as error:
        print(f"refused: {error}", file=log)


def main() -> None:
    for line in sys.stdin:
        task = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                work(task)
                code = 0
            except KeyboardInterrupt:
                code = 130
            except SystemExit as end:
                code = int(end.code or 0)
            finally:
                os._exit(code)
        print(child, flush=True)
        if task.get("wait", True):
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
