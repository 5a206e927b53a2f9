"""What single settings of generation may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from serve.errors import InputError
from serve.text.unicode import check_unicode


def check_values(given: Mapping[str, Any]) -> None:
    """Refuse a value that its setting cannot have; settings without a rule are passed over."""
    for name, value in given.items():
        if name not in RULES or (value is None and name in MAY_BE_NONE):
            continue
        test, expected = RULES[name]
        if not test(value):
            raise InputError(f"{name}={value!r:.200}: expected {expected}")


def texts(name: str, value: Any) -> tuple[str, ...]:
    """A text or several, each of at least one character."""
    if value is None:
        return ()
    given = (value,) if isinstance(value, str) else value
    if not isinstance(given, Sequence | Set):
        raise InputError(f"{name}={value!r}: expected a text, or a list of texts")
    for text in given:
        if not isinstance(text, str) or not text:
            raise InputError(f"{name}={text!r}: expected a text of at least one character")
        check_unicode(name, text)
    return tuple(given)


def token_rows(value: Any) -> Sequence[Any]:
    """Rows of tokens."""
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
        raise InputError(f"bad_words_ids={value!r}: expected a list of rows of token ids")
    return value  # type: ignore[return-value]  # an array is a sequence of its rows


def token_biases(value: Any) -> dict[int, float]:
    """Numbers by token id; minus infinity rules a token out."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"logit_bias={value!r}: expected a dict of token ids and numbers")
    for token, bias in value.items():
        if not whole(0)(token) or not (_NUMBER[0](bias) or _is_minus_infinity(bias)):
            raise InputError(
                f"logit_bias holds {token!r}: {bias!r}, expected token ids, whole numbers from 0, "
                "and numbers up to 1e9 (-inf rules a token out)"
            )
    return dict(value)


def _is_minus_infinity(value: Any) -> bool:
    return isinstance(value, float | np.floating) and bool(value == -np.inf)


def token_ids(name: str, value: Any) -> tuple[int, ...]:
    """One token id or several."""
    if value is None:
        return ()
    if whole(0)(value):
        return (int(value),)
    given = tuple(value) if isinstance(value, Sequence | np.ndarray) else (value,)
    for token in given:
        if not whole(0)(token):
            raise InputError(f"{name} holds {token!r}: expected token ids, whole numbers from 0")
    return tuple(int(token) for token in given)


def whole(least: int) -> Callable[[Any], bool]:
    """Tells whole numbers of at least so many."""
    return lambda value: (
        isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= least)
    )


def _real(above: float, most: float) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, int | float | np.number)
        and not isinstance(value, bool)
        and bool(above < value <= most)
    )


_Rule = tuple[Callable[[Any], bool], str]
_POSITIVE: _Rule = (whole(1), "a whole number from 1")
_COUNT: _Rule = (whole(0), "a whole number from 0")
_SHARE: _Rule = (_real(0, 1), "a number above 0 and up to 1")
_FLAG: _Rule = (lambda value: isinstance(value, bool | np.bool_), "True or False")
_NUMBER: _Rule = (_real(-1e30, 1e9), "a number above -1e30 and up to 1e9")
_ROWS: _Rule = (
    lambda value: whole(1)(value) and bool(value <= 10000),
    "a whole number from 1 to 10000",
)
_TEXT: _Rule = (
    lambda value: isinstance(value, str) and value != "",
    "a text of at least one character",
)
RULES: dict[str, _Rule] = {
    "max_new_tokens": _POSITIVE,
    "min_new_tokens": _COUNT,
    "max_length": _POSITIVE,
    "min_length": _COUNT,
    "do_sample": _FLAG,
    "ignore_eos": _FLAG,
    "renormalize_logits": _FLAG,
    "temperature": (_real(1e-30, 1e4), "a number above 1e-30, where float32 ends, and up to 10000"),
    "top_k": _POSITIVE,
    "top_p": _SHARE,
    "min_p": _SHARE,
    "typical_p": _SHARE,
    "seed": _COUNT,
    "num_return_sequences": _ROWS,
    "num_beams": _ROWS,
    "num_beam_groups": _ROWS,
    "diversity_penalty": _NUMBER,
    "length_penalty": (_real(-50, 50), "a number above -50 and up to 50"),
    "early_stopping": (
        lambda value: _FLAG[0](value) or (isinstance(value, str) and value == "never"),
        "True, False or 'never'",
    ),
    "repetition_penalty": (_real(0, 1e4), "a number above 0 and up to 10000"),
    "presence_penalty": _NUMBER,
    "frequency_penalty": _NUMBER,
    "no_repeat_ngram_size": _COUNT,
    "encoder_no_repeat_ngram_size": _COUNT,
    "forced_bos_token_id": _COUNT,
    "forced_eos_token_id": _COUNT,
    "logprobs": _COUNT,
    "penalty_alpha": _SHARE,
    "prompt_lookup": _COUNT,
    "draft_tokens": _POSITIVE,
    "pad_token_id": _COUNT,
    "regex": _TEXT,
    "grammar": _TEXT,
}
MAY_BE_NONE = {
    "max_new_tokens",
    "max_length",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "seed",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "logprobs",
    "penalty_alpha",
    "regex",
    "grammar",
}
