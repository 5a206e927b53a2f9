"""Texts that cannot be written in UTF-8, named before a library stumbles over them."""

from __future__ import annotations

import re

from serve.errors import InputError

_HALF = re.compile("[\\ud800-\\udfff]")


def half_character(*texts: object) -> str | None:
    """Says where texts hold half a character, as cutting UTF-16 in two leaves it; None: nowhere.

    Args:
        texts: Any; what is no text is passed over.
    """
    for text in texts:
        if isinstance(text, str) and (found := _HALF.search(text)):
            return (
                f"it holds half a character (the lone surrogate U+{ord(found[0]):04X}) at "
                f"character {found.start()}; leave that out, or decode the text with "
                "errors='replace'"
            )
    return None


def check_unicode(what: str, text: str) -> None:
    """Refuse a text that holds half a character.

    Args:
        what: What the text is called in the error.
        text: Any.

    Raises:
        InputError: It holds one.
    """
    if reason := half_character(text):
        raise InputError(f"{what} is not valid Unicode: {reason}")
