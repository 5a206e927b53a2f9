"""What a request asks of generation, on top of the model's own defaults."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from serve.bundle.manifest import GenerationSpec
from serve.errors import InputError


@dataclass(frozen=True)
class GenerationSettings:
    """Settings of one request.

    Attributes:
        max_new_tokens: Most tokens to generate. None: the model's default, cut to what still fits.
        do_sample: Draw at random; otherwise always the likeliest token.
        temperature: Divides the logits before drawing; below 1 is more certain.
        top_k: Draw among the k likeliest only.
        top_p: Draw among the likeliest that together hold this probability (nucleus sampling,
            https://arxiv.org/abs/1904.09751).
        seed: Makes the draw repeatable: a request gives the same tokens alone and in a batch.
        stop: Texts that end the answer; they are not part of it.
        eos_token_id: Tokens that end the answer; they are not part of it.
        pad_token_id: What finished rows are fed with.
    """

    max_new_tokens: int | None = None
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    eos_token_id: tuple[int, ...] = ()
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        object.__setattr__(self, "stop", tuple(self.stop or ()))
        object.__setattr__(self, "eos_token_id", tuple(self.eos_token_id or ()))
        _require("max_new_tokens", self.max_new_tokens, _whole(1), "a whole number from 1")
        _require("temperature", self.temperature, _real(0, 1e4), "a number above 0")
        _require("top_k", self.top_k, _whole(1), "a whole number from 1")
        _require("top_p", self.top_p, _real(0, 1), "a number above 0 and up to 1")
        _require("seed", self.seed, _whole(0), "a whole number from 0")
        for text in self.stop:
            if not isinstance(text, str) or not text:
                raise InputError(f"stop={text!r}: expected a text of at least one character")
        if self.temperature is None:
            raise InputError("temperature=None: expected a number above 0")

    @classmethod
    def for_model(cls, spec: GenerationSpec | None, **given: Any) -> GenerationSettings:
        """The model's defaults, overridden by what is given and not None.

        A temperature, top_k or top_p that is given asks for sampling, unless `do_sample` says
        otherwise; a seed alone does not.
        """
        given = {name: value for name, value in given.items() if value is not None}
        unknown = sorted(set(given) - set(cls.__dataclass_fields__))
        if unknown:
            raise InputError(
                f"unknown generation setting {unknown[0]!r}, "
                f"expected one of {sorted(cls.__dataclass_fields__)}"
            )
        if {"temperature", "top_k", "top_p"} & set(given):
            given.setdefault("do_sample", True)
        if spec is None:
            return cls(**given)
        base = cls(
            do_sample=spec.do_sample,
            temperature=spec.temperature,
            top_k=spec.top_k,
            top_p=spec.top_p,
            eos_token_id=tuple(spec.eos_token_id),
            pad_token_id=spec.pad_token_id,
        )
        return replace(base, **given)


def _require(name: str, value: Any, test: Any, expected: str) -> None:
    if value is not None and not test(value):
        raise InputError(f"{name}={value!r}: expected {expected}")


def _whole(least: int) -> Any:
    return lambda value: (
        isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= least
    )


def _real(above: float, most: float) -> Any:
    return lambda value: (
        isinstance(value, int | float | np.number)
        and not isinstance(value, bool)
        and above < value <= most
    )
