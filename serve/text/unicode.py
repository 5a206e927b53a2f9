"""Texts that cannot be written in UTF-8, named before a library stumbles over them."""

from __future__ import annotations

import re

from serve.errors import InputError

_HALF = re.compile("[\ud800-\udfff]")


def check_unicode(what: str, text: str) -> None:
    """Refuse a text that holds half a character, as cutting UTF-16 in two leaves it.

    Args:
        what: What the text is called in the error.
        text: Any.

    Raises:
        InputError: It holds one.
    """
    if found := _HALF.search(text):
        raise InputError(
            f"{what} is not valid Unicode: it holds half a character (the lone surrogate "
            f"U+{ord(found[0]):04X}) at character {found.start()}; leave it out, or decode the "
            "text with errors='replace'"
        )
