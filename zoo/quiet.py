"""Native code without the lines it writes to standard error, which no logging configures."""

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator

QUIET = "3"
"""The value of TF_CPP_MIN_LOG_LEVEL that asks for silence; the command line sets it."""

_AWAY = threading.RLock()
"""There is one descriptor for all threads: two that restored it crosswise would lose it."""


@contextlib.contextmanager
def native_lines_withheld(*telling: type[BaseException]) -> Iterator[None]:
    """Turns standard error's file descriptor away for the length of the context; what was written
    is shown if an exception leaves it, unless the exception is one of `telling`. One thread at a
    time.
    """
    with _AWAY, tempfile.TemporaryFile() as written:
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(written.fileno(), 2)
        try:
            yield
        except BaseException as error:
            if not isinstance(error, telling):
                written.seek(0)
                os.write(kept, written.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def start_tensorflow() -> None:
    """Imports TensorFlow; where silence is asked for, what it writes is shown on failure only."""
    if "tensorflow" in sys.modules or os.environ.get("TF_CPP_MIN_LOG_LEVEL") != QUIET:
        return
    with native_lines_withheld():
        import tensorflow  # noqa: F401
