"""Settings that a caller gave together although they contradict one another.

Only what was given is looked at: a model's own defaults give way to it instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from serve.errors import InputError

SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p")
_CHANGES_NOTHING = {"temperature": 1.0, "top_p": 1.0}


def check_given(given: Mapping[str, Any], groups: int) -> None:
    """Refuse what cannot be meant.

    Args:
        given: The settings that a caller gave, each valid by itself.
        groups: Groups of beams that there will be.

    Raises:
        InputError: Two of them contradict one another; it names both.
    """
    if given.get("do_sample") is False and not given.get("penalty_alpha"):
        for name in SAMPLING:
            if name in given and given[name] != _CHANGES_NOTHING.get(name):
                raise InputError(
                    f"do_sample=False takes the likeliest tokens, {name}={given[name]!r} is for "
                    "drawing them: give one of the two"
                )
    least, most = given.get("min_new_tokens"), given.get("max_new_tokens")
    if least is not None and most is not None and least > most:
        raise InputError(
            f"min_new_tokens={least} is more than max_new_tokens={most}: lower the one or raise "
            "the other"
        )
    if given.get("num_beam_groups", 1) > 1 and given.get("do_sample"):
        raise InputError(
            f"num_beam_groups={given['num_beam_groups']}: groups of beams are kept apart by "
            "diversity_penalty and not drawn; leave out the groups, or what asks for sampling "
            "(do_sample, temperature, top_k, top_p, min_p, typical_p)"
        )
    if given.get("diversity_penalty") and groups == 1 and "num_beam_groups" not in given:
        raise InputError(
            f"diversity_penalty={given['diversity_penalty']!r} keeps groups of beams apart: set "
            "num_beam_groups, too"
        )


def unknown_setting(name: str, known: Iterable[str]) -> InputError:
    """The error for a setting that there is not: it names those that are spelt much alike, or all.

    Args:
        name: What was given.
        known: What there is.
    """
    known = sorted(known)
    alike = difflib.get_close_matches(name, known, 3)
    expected = (
        f"did you mean {' or '.join(map(repr, alike))}?"
        if alike
        else f"expected one of {', '.join(known)}"
    )
    return InputError(f"unknown generation setting {name!r}: {expected}")
