"""Text files opened alike, packed or not, with errors that say where."""

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zoo.errors import ConfigError, DataError


@contextmanager
def open_text(
    path: Path, encoding: str = "utf-8", errors: str = "strict"
) -> Iterator[io.TextIOBase]:
    """The file as text, unpacked where it is gzip (told by its first bytes, not its name).

    Raises:
        DataError: when it is missing, unreadable or in another encoding.
    """
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        encoding = "utf-8-sig"
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        opener = gzip.open if packed else open
        with opener(path, "rt", encoding=encoding, errors=errors, newline="") as stream:
            yield stream  # type: ignore[misc]
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except LookupError as error:
        raise ConfigError(f"{path}: {error}") from error
    except UnicodeDecodeError as error:
        wrong = error.object[error.start : error.start + 1].hex()
        raise DataError(
            f"{path}{_undecodable_line(path, encoding)}: byte 0x{wrong} is not "
            f'{encoding.removesuffix("-sig")}; give encoding= (e.g. "gb18030", "latin-1") '
            'or errors="replace"'
        ) from error
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def _undecodable_line(path: Path, encoding: str) -> str:
    """Where decoding fails, for encodings whose line ends are single bytes."""
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    with (gzip.open if packed else open)(path, "rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError:
                return f", line {number}"
    return ""
