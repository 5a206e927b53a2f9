"""Folders that appear whole or not at all."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from export.errors import ExportError


@contextlib.contextmanager
def staged(out: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Gives a temporary folder beside `out`, which becomes `out` when the context ends well.

    Whatever goes wrong, an interruption included, leaves nothing behind and `out` as it was.

    Args:
        out: The folder to make.
        overwrite: Replace `out` where it exists.

    Raises:
        ExportError: `out` exists, or its parent cannot be written.
    """
    out = Path(out)
    _refuse_existing(out, overwrite)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{out.name}-", suffix=".partial", dir=out.parent))
    except OSError as error:
        raise ExportError(
            f"cannot write beside {out}: {error.strerror}; choose another --out"
        ) from error
    try:
        yield stage
        stage.chmod(0o755)
        _refuse_existing(out, overwrite)  # another export may have finished meanwhile
        _move(stage, out, overwrite)
    except OSError as error:
        raise ExportError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _refuse_existing(out: Path, overwrite: bool) -> None:
    if out.is_file():
        raise ExportError(f"{out} is a file; choose another folder")
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise ExportError(f"{out} exists already; choose another folder, or overwrite it")


def _move(stage: Path, out: Path, overwrite: bool) -> None:
    if not (overwrite and out.is_dir()):
        try:
            stage.rename(out)
        except OSError as error:
            raise ExportError(f"{out} was written by another export meanwhile") from error
        return
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as attic:
        old = out.rename(Path(attic) / "old")
        try:
            stage.rename(out)
        except BaseException:
            old.rename(out)
            raise
