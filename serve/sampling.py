"""Chooses the next token: the likeliest, or one drawn with temperature, top-k and top-p."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from serve.errors import InputError
from serve.manifest import GenerationSpec

_BLOCK = 256
_BUCKETS = 1024  # of 1/32 nat each: the last one begins where probabilities are nil


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


class Sampler:
    """Draws the next token of every row of a batch; each row has settings and a seed of its own."""

    def __init__(self, settings: Sequence[GenerationSettings]) -> None:
        self._settings = list(settings)
        self._random = [np.random.default_rng(one.seed) for one in self._settings]
        self._greedy = not any(one.do_sample for one in self._settings)

    def __call__(self, logits: np.ndarray, rows: Sequence[int]) -> np.ndarray:
        """Choose one token per row.

        Args:
            logits: [rows, vocabulary].
            rows: Which request each line of `logits` belongs to.
        """
        if self._greedy:
            return logits.argmax(-1)
        return np.array(
            [
                draw(line, self._settings[row], self._random[row].random())
                if self._settings[row].do_sample
                else line.argmax()
                for line, row in zip(logits, rows, strict=True)
            ],
            dtype=np.int64,
        )


def draw(logits: np.ndarray, settings: GenerationSettings, uniform: float) -> int:
    """Draw a token from one row of logits, given a uniform number in [0, 1)."""
    top_p = settings.top_p if settings.top_p is not None and settings.top_p < 1 else None
    top_k = settings.top_k if settings.top_k is not None and settings.top_k < logits.size else None
    logits = logits.astype(np.float32, copy=False)
    ids = None
    if top_k is not None:
        ids = top(logits, top_k)
    elif top_p is not None:
        ids = nucleus(logits, settings.temperature, top_p)
    values = logits if ids is None else logits[ids]
    weights = np.exp((values - values.max()) / np.float32(settings.temperature))
    mass = np.cumsum(weights, dtype=np.float64)
    if top_k is not None and top_p is not None:  # the shortest prefix that reaches top_p
        mass = mass[: int(np.searchsorted(mass, top_p * mass[-1])) + 1]
    chosen = int(np.searchsorted(mass, uniform * mass[-1], side="right"))
    chosen = min(chosen, len(mass) - 1)
    return chosen if ids is None else int(ids[chosen])


def top(logits: np.ndarray, k: int) -> np.ndarray:
    """Ids of the k largest logits, largest first, ties by id: [vocabulary] -> [k].

    The k-th largest of the maxima of blocks is a bound that few logits reach, and finding those
    is several times quicker than partitioning a whole vocabulary.
    """
    blocks = logits.size // _BLOCK
    if k < blocks:
        maxima = logits[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(1)
        bound = np.partition(maxima, blocks - k)[blocks - k]
        ids = np.flatnonzero(logits >= bound)
    else:
        ids = np.arange(logits.size)
    if len(ids) > 4 * k:
        values = logits[ids]
        ids = ids[values >= np.partition(values, len(ids) - k)[len(ids) - k]]
    return _descending(logits[ids], ids)[:k]


def _descending(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """`ids` by falling value, ties by rising id.

    Value and id share one whole number, and sorting those is many times quicker than a stable
    argsort of floats: a float's bits, signed ones turned over, order as the float does.
    """
    bits = (values.astype(np.float32) + np.float32(0)).view(np.uint32)
    rising = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    keys = ((~rising).astype(np.uint64) << np.uint64(32)) | ids.astype(np.uint64)
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


def nucleus(logits: np.ndarray, temperature: float, top_p: float) -> np.ndarray:
    """Ids of the fewest likeliest tokens that together reach `top_p`, in no particular order.

    Tokens are sorted into buckets by how far they lie below the best; only the bucket in which
    `top_p` is reached has to be looked at token by token.
    """
    depth = (logits.max() - logits) / np.float32(temperature)
    weights = np.exp(-depth)
    bucket = np.minimum(depth * np.float32(32), np.float32(_BUCKETS - 1)).astype(np.int64)
    mass = np.cumsum(np.bincount(bucket, weights, minlength=_BUCKETS))
    wanted = top_p * mass[-1]
    edge = int(np.searchsorted(mass, wanted))
    at_edge = np.flatnonzero(bucket == edge)
    at_edge = _descending(logits[at_edge], at_edge)
    before = mass[edge - 1] if edge else 0.0
    reached = np.cumsum(weights[at_edge], dtype=np.float64)
    count = int(np.searchsorted(reached, wanted - before)) + 1
    return np.concatenate([np.flatnonzero(bucket < edge), at_edge[:count]])


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
