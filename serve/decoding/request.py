"""What is asked of generation, and what it answers."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serve.decoding.sampling import TokenLogprobs
from serve.decoding.settings import GenerationSettings
from serve.errors import InputError


@dataclass(frozen=True)
class Request:
    """One prompt and its settings.

    Attributes:
        input_ids: What a decoder goes on from, or what an encoder reads.
        settings: See `GenerationSettings`.
        prefix: For an encoder-decoder, what the decoder begins with, start token included.

    Raises:
        InputError: Ids are not whole numbers, or settings are of another type. What does not fit a
            model is refused by the model.
    """

    input_ids: Sequence[int]
    settings: GenerationSettings
    prefix: Sequence[int] | None = None

    def __post_init__(self) -> None:
        _check_ids("input_ids", self.input_ids)
        if self.prefix is not None:
            _check_ids("prefix", self.prefix)
        if not isinstance(self.settings, GenerationSettings):
            raise InputError(
                f"settings={self.settings!r:.60}: expected those of `Generator.settings`, "
                f"got {type(self.settings).__name__}"
            )


@dataclass(frozen=True)
class Completion:
    """One generated sequence.

    Attributes:
        token_ids: New tokens, without the one that ended it.
        finish_reason: "eos", "stop" (ended by a stop string), "length" (no more were asked for),
            "constraint" (nothing may follow) or "cancelled".
        score: Of a beam: its log-probability over its length to the power of the length penalty.
        logprobs: Of the tokens, the ending one included; None unless asked for.
    """

    token_ids: tuple[int, ...]
    finish_reason: str
    score: float | None = None
    logprobs: tuple[TokenLogprobs, ...] | None = None


def _check_ids(name: str, ids: Any) -> None:
    """Refuse what is no row of whole numbers."""
    if isinstance(ids, np.ndarray):
        if ids.ndim != 1 or not (np.issubdtype(ids.dtype, np.integer) or ids.size == 0):
            raise InputError(
                f"{name} is an array of {ids.dtype} with shape {ids.shape}: expected whole numbers "
                "in one dimension"
            )
        return
    if isinstance(ids, str | bytes) or not isinstance(ids, Sequence | array):
        raise InputError(f"{name}={ids!r:.60}: expected a list of token ids")
    for token in ids:
        if not isinstance(token, int | np.integer) or isinstance(token, bool):
            raise InputError(f"{name} holds {token!r:.60}: expected token ids, whole numbers")
