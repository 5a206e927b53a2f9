"""What is asked of generation, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from serve.decoding.sampling import TokenLogprobs
from serve.decoding.settings import GenerationSettings


@dataclass(frozen=True)
class Request:
    """One prompt and its settings.

    Attributes:
        input_ids: What a decoder goes on from, or what an encoder reads.
        settings: See `GenerationSettings`.
        prefix: For an encoder-decoder, what the decoder begins with, start token included.
    """

    input_ids: Sequence[int]
    settings: GenerationSettings
    prefix: Sequence[int] | None = None


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
