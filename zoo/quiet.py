"""TensorFlow without the lines it writes to standard error before its logging can be configured."""

import os
import sys
import tempfile

QUIET = "3"
"""The value of TF_CPP_MIN_LOG_LEVEL that asks for silence; the command line sets it."""


def start_tensorflow() -> None:
    """Imports TensorFlow; where silence is asked for, what it writes is shown on failure only.

    The lines come from native code, so the file descriptor itself is turned away for that moment.
    """
    if "tensorflow" in sys.modules or os.environ.get("TF_CPP_MIN_LOG_LEVEL") != QUIET:
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        except BaseException:
            written.seek(0)
            os.write(kept, written.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
