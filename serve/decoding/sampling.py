"""Chooses the next token: the likeliest, or one drawn with temperature, top-k and top-p."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serve.decoding.settings import GenerationSettings

_BLOCK = 256
_BUCKETS = 1024  # of 1/32 nat each: the last one begins where probabilities are nil


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
