"""Folders that appear whole or not at all, whatever ends the process that writes them."""

import contextlib
import errno
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from export.errors import ExportError

try:
    import fcntl
except ImportError:  # Windows has no such locks: who finishes first wins there
    fcntl = None  # type: ignore[assignment]

PARTIAL, REPLACED = ".partial", ".replaced"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def staged(out: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Gives a temporary folder beside `out`, which becomes `out` when the context ends well.

    Whatever goes wrong, an interruption (SIGINT, SIGTERM, SIGHUP) included, leaves nothing behind
    and `out` as it was. What a process that was killed left is put right by the next export to the
    same folder. A folder that is being written is locked: a second export to it fails at once.

    Args:
        out: The folder to make.
        overwrite: Replace `out` where it exists.

    Raises:
        ExportError: `out` exists, is being written by another export, its parent cannot be written,
            or the disk is full.
    """
    out = Path(out)
    with _ended_by_signals():
        stage, lock = _begin(out, overwrite)
        try:
            yield stage
            stage.chmod(0o755)
            with _locked(out.parent):
                _refuse_existing(out, overwrite)  # another export may have finished meanwhile
                _move(stage, out, overwrite)
        except OSError as error:
            raise ExportError(f"cannot write {out}: {error.strerror or error}") from error
        except Exception as error:
            # TensorFlow and tokenizers have errors of their own for what is an OSError.
            reasons = [os.strerror(code) for code in _FULL if os.strerror(code) in str(error)]
            if isinstance(error, ExportError) or not reasons:
                raise
            raise ExportError(f"cannot write {out}: {reasons[0]}") from error
        finally:
            shutil.rmtree(stage, ignore_errors=True)
            if lock is not None:
                os.close(lock)


def _begin(out: Path, overwrite: bool) -> tuple[Path, int | None]:
    """The temporary folder and the lock on it, with what dead exports left put right first."""
    _refuse_existing(out, overwrite)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _locked(out.parent):
            _recover(out)
            _refuse_existing(out, overwrite)
            name = tempfile.mkdtemp(prefix=f".{out.name}-", suffix=PARTIAL, dir=out.parent)
            return Path(name), _lock(Path(name))
    except OSError as error:
        raise ExportError(
            f"cannot write beside {out}: {error.strerror}; choose another --out"
        ) from error


def _recover(out: Path) -> None:
    """Removes what exports to `out` left that were killed, and puts back what they took away.

    Raises:
        ExportError: Another export to `out` is at work.
    """
    for path in _traces(out, PARTIAL):
        try:
            lock = _lock(path)
        except BlockingIOError:
            raise ExportError(
                f"another export is writing {out} at this moment (in {path.name}); wait for it, or "
                "choose another folder"
            ) from None
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)
    for path in _traces(out, REPLACED):
        if out.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(out)


def _traces(out: Path, suffix: str) -> list[Path]:
    """Folders beside `out` that exports to it made."""
    name = re.compile(rf"\.{re.escape(out.name)}-[a-z0-9_]{{8}}{re.escape(suffix)}")
    return sorted(path for path in out.parent.iterdir() if name.fullmatch(path.name))


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
    old = out.rename(stage.with_suffix(REPLACED))
    try:
        stage.rename(out)
    except BaseException:
        old.rename(out)
        raise
    if old.is_symlink():
        old.unlink()
    shutil.rmtree(old, ignore_errors=True)


def _lock(folder: Path) -> int | None:
    """An open lock on a folder, which its process' end releases too; None where there are none.

    Raises:
        BlockingIOError: Another holds it.
    """
    if fcntl is None:
        return None
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    except OSError:  # a file system without locks
        os.close(handle)
        return None
    return handle


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time looks at what lies in `folder` and changes it; a moment each."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Signals that would end the process on the spot unwind it: exit status 128 + signal."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def staged_file(out: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Gives a temporary file's name beside `out`, which becomes `out` when the context ends well.

    Args:
        out: The file to make.
        overwrite: Replace `out` where it exists.

    Raises:
        ExportError: `out` exists, or cannot be written.
    """
    out = Path(out)

    def refuse() -> None:
        if out.is_dir() or (out.exists() and not overwrite):
            kind = "is a folder" if out.is_dir() else "exists already"
            raise ExportError(f"{out} {kind}; choose another file, or overwrite it")

    refuse()
    with _ended_by_signals():
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(f"{PARTIAL}{out.suffix}", f".{out.name}-", out.parent)
            os.close(handle)
        except OSError as error:
            raise ExportError(f"cannot write beside {out}: {error.strerror}") from error
        stage = Path(name)
        try:
            yield stage
            stage.chmod(0o644)
            with _locked(out.parent):
                refuse()
                stage.replace(out)
        except OSError as error:
            raise ExportError(f"cannot write {out}: {error.strerror or error}") from error
        finally:
            stage.unlink(missing_ok=True)
