"""Arguments that are a text, or the file that holds it."""

from __future__ import annotations

from pathlib import Path

from serve.errors import InputError

_SUFFIXES = {".txt", ".md", ".lark", ".json", ".jinja", ".jinja2", ".j2"}


def file_or_text(given: str) -> str:
    """The text of a file, or the text itself where there is no such file.

    Raises:
        InputError: The file is not UTF-8, or what was given can only be the name of a file that
            there is not.
    """
    try:
        path = Path(given)
        if path.is_file():
            return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{given} is not UTF-8") from error
    except (OSError, ValueError):  # too long for a file's name, or holding a zero byte: a text
        return given
    if path.suffix.lower() in _SUFFIXES and len(given.split()) == 1:
        raise InputError(f"{given}: there is no such file")
    return given
