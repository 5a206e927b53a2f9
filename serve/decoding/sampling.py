"""Draws the next token from a row of scores, and the log-probabilities of tokens.

The warpers are those of Hugging Face's `generate`, in its order: temperature, top-k, top-p, min-p,
typical. Each looks only at the tokens that the ones before it left.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from serve.decoding.settings import GenerationSettings
from serve.errors import InputError

_BLOCK = 256
_BUCKETS = 1024
_PER_NAT = np.float32(32)  # buckets: the last one begins where probabilities are nil
_CHUNK = 8192  # tokens at a time: what is computed of them stays in the processor's cache


class TokenLogprobs(NamedTuple):
    """A token with its log-probability, and the likeliest ones, likeliest first."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def draw(scores: np.ndarray, settings: GenerationSettings, uniform: float) -> int:
    """Draw a token from one row of scores.

    Args:
        scores: [vocabulary]; -inf for tokens that are ruled out.
        settings: Temperature, top_k, top_p, min_p and typical_p.
        uniform: A number in [0, 1). The tokens that are left share that interval in the order of
            their ids, so that a score's last digits seldom change what is drawn.

    Raises:
        InputError: Every token is ruled out.
    """
    scores = scores.astype(np.float32, copy=False)
    ids = _left(scores, settings, 1)
    values = scores if ids is None else scores[ids]
    best = values.max()
    if not best > -np.inf:
        raise InputError(
            "no token is left to draw: the settings rule out every one; "
            "lower min_length, or take tokens from bad_words_ids and suppress_tokens"
        )
    chosen = _at(np.exp((values - best) / np.float32(settings.temperature)), uniform)
    return chosen if ids is None else int(ids[chosen])


def warp(scores: np.ndarray, settings: GenerationSettings) -> np.ndarray:
    """The scores that `draw` draws from, as a new row: [vocabulary] -> float32 [vocabulary].

    Divided by the temperature, and -inf for what the warpers leave out. Of a beam search they leave
    a token more than there are end tokens, so that every beam can go on.
    """
    scores = scores.astype(np.float32, copy=False)
    least = 1 if settings.num_beams == 1 else 1 + max(1, len(settings.eos_token_id))
    ids = _left(scores, settings, least)
    scaled = scores / np.float32(settings.temperature)
    if ids is not None:
        kept = np.full_like(scaled, -np.inf)
        kept[ids] = scaled[ids]
        scaled = kept
    return log_softmax(scaled) if settings.renormalize_logits else scaled


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Logarithms of the softmax of one row, a new array; a row of -inf stays so. float32 [size]."""
    best = scores.max()
    if best == -np.inf:
        return np.array(scores)
    shifted: np.ndarray = scores - best
    shifted -= np.log(np.exp(shifted).sum())
    return shifted


def log_softmax_at(scores: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """`log_softmax` of one row, at some ids only: [vocabulary], [ids] -> float32 [ids]."""
    best = scores.max()
    shifted = scores - best
    np.exp(shifted, out=shifted)
    return scores[ids] - best - np.log(shifted.sum())


def token_logprobs(logits: np.ndarray, token: int, count: int) -> TokenLogprobs:
    """Log-probabilities of a token and of the `count` likeliest, from logits [vocabulary]."""
    best = logits.max()
    total = best + np.log(np.exp(logits - best).sum())
    ids = top(logits, count) if count else np.zeros(0, np.int64)
    values = (logits[ids] - total).tolist()
    likeliest = tuple(zip(ids.tolist(), values, strict=True))
    return TokenLogprobs(int(token), float(logits[token] - total), likeliest)


def top(logits: np.ndarray, k: int) -> np.ndarray:
    """Ids of the k largest logits, largest first, ties by id: [vocabulary] -> [k]."""
    ids = _largest(logits, k)
    if ids is None:
        ids = np.arange(logits.size)
    return _descending(logits[ids], ids)[:k]


def _left(scores: np.ndarray, settings: GenerationSettings, least: int) -> np.ndarray | None:
    """Rising ids of the tokens that the warpers leave, at least `least`; None: all."""
    ids = None
    values = scores
    if settings.top_k is not None:
        ids = _largest(scores, max(settings.top_k, least))
        values = scores if ids is None else scores[ids]
    for share, warper in _WARPERS:
        wanted = getattr(settings, share)
        if wanted is None or len(values) <= least or not (best := values.max()) > -np.inf:
            continue
        depth = best - values
        depth /= np.float32(settings.temperature)
        kept = warper(depth, wanted, least)
        if kept is not None:
            ids = kept if ids is None else ids[kept]
            values = scores[ids]
    return ids


def _largest(values: np.ndarray, k: int) -> np.ndarray | None:
    """Rising ids of the k largest values and of those equal to the last; None: all.

    The k-th largest of the maxima of blocks is a bound that few values reach, and finding those
    is several times quicker than partitioning a whole vocabulary.
    """
    if k >= values.size:
        return None
    blocks = values.size // _BLOCK
    ids = None
    if k < blocks:
        maxima = values[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(1)
        ids = np.flatnonzero(values >= np.partition(maxima, blocks - k)[blocks - k])
    near = values if ids is None else values[ids]
    reach = near >= np.partition(near, len(near) - k)[len(near) - k]
    return np.flatnonzero(reach) if ids is None else ids[reach]


def _nucleus(depth: np.ndarray, top_p: float, least: int) -> np.ndarray | None:
    """Places of the fewest likeliest tokens that together reach `top_p`; of equal ones the last.

    Args:
        depth: How far each token lies below the likeliest, in nats; rising is less likely.
        top_p: The probability.
        least: Tokens to keep in any case.
    """
    if top_p == 1:
        return None
    kept, edge, reached, wanted = _nearest(depth, depth, top_p)
    kept[edge[: int(np.searchsorted(reached, wanted)) + 1]] = True
    return _at_least(kept, depth, least)


def _likely(depth: np.ndarray, min_p: float, least: int) -> np.ndarray | None:
    """Places of the tokens at least `min_p` times as likely as the likeliest."""
    kept = depth <= np.float32(-np.log(min_p) + 0.01)
    places = np.flatnonzero(kept)
    kept[places] = np.exp(-depth[places]) >= np.float32(min_p)
    return _at_least(kept, depth, least)


def _typical(depth: np.ndarray, typical_p: float, least: int) -> np.ndarray | None:
    """Places of the tokens nearest the expected information that together reach `typical_p`.

    A token's information exceeds the likeliest's by its depth, so that its distance from the
    entropy is the distance of its depth from the expected one.
    """
    if typical_p == 1:
        return None
    mass = information = 0.0
    for start in range(0, len(depth), _CHUNK):
        part = depth[start : start + _CHUNK]
        weights = np.exp(-part)
        mass += float(weights.sum())
        information += float((weights * np.minimum(part, np.finfo(np.float32).max)).sum())
    distance = depth - np.float32(information / mass)
    np.abs(distance, out=distance)
    _, edge, reached, wanted = _nearest(distance, depth, typical_p)
    last = edge[min(int(np.searchsorted(reached, wanted)), len(edge) - 1)]
    return _at_least(distance <= distance[last], distance, least)


def _nearest(
    keys: np.ndarray, depth: np.ndarray, share: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Where the tokens of the smallest keys reach a share of all weight.

    A histogram of the keys says in which bucket they do, and only the tokens of that bucket are
    sorted; of few tokens all are.

    Returns:
        Which tokens [size] lie in the buckets before; those of that bucket by rising key, of equal
        ones the last first; the weight of all tokens up to each of these; and the weight wanted.
    """
    if len(keys) <= _BUCKETS:
        edge = len(keys) - 1 - np.argsort(keys[::-1], kind="stable")
        reached = np.cumsum(np.exp(-depth[edge]), dtype=np.float64)
        return np.zeros(len(keys), np.bool_), edge, reached, share * float(reached[-1])
    mass = np.zeros(_BUCKETS)
    for start in range(0, len(keys), _CHUNK):
        part = slice(start, start + _CHUNK)
        bucket = np.minimum(keys[part] * _PER_NAT, np.float32(_BUCKETS - 1)).astype(np.int64)
        mass += np.bincount(bucket, np.exp(-depth[part]), minlength=_BUCKETS)
    mass = np.cumsum(mass)
    wanted = share * float(mass[-1])
    at = min(int(np.searchsorted(mass, wanted)), _BUCKETS - 1)
    high = np.float32(at + 1 if at + 1 < _BUCKETS else np.inf) / _PER_NAT
    kept = keys < np.float32(at) / _PER_NAT
    edge = np.flatnonzero((keys < high) & ~kept)[::-1]
    edge = edge[np.argsort(keys[edge], kind="stable")]
    before = float(mass[at - 1]) if at else 0.0
    return kept, edge, before + np.cumsum(np.exp(-depth[edge]), dtype=np.float64), wanted


def _at_least(kept: np.ndarray, keys: np.ndarray, least: int) -> np.ndarray:
    """Rising places of what is kept; where that is fewer than `least`, of the smallest keys."""
    places = np.flatnonzero(kept)
    if len(places) >= least:
        return places
    bound = np.partition(keys, least - 1)[least - 1]
    below = np.flatnonzero(keys < bound)
    equal = np.flatnonzero(keys == bound)
    return np.sort(np.concatenate([below, equal[len(equal) + len(below) - least :]]))


_WARPERS = (("top_p", _nucleus), ("min_p", _likely), ("typical_p", _typical))


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


def _at(weights: np.ndarray, uniform: float) -> int:
    """The place at which the share `uniform` of all weight is passed, block by block."""
    blocks = -(-weights.size // _BLOCK)
    padded = np.zeros((blocks, _BLOCK), np.float32)
    padded.reshape(-1)[: weights.size] = weights
    mass = np.cumsum(padded.sum(1), dtype=np.float64)
    wanted = uniform * float(mass[-1])
    block = min(int(np.searchsorted(mass, wanted, side="right")), blocks - 1)
    before = float(mass[block - 1]) if block else 0.0
    reached = before + np.cumsum(padded[block], dtype=np.float64)
    place = int(np.searchsorted(reached, wanted, side="right"))
    possible = np.flatnonzero(padded[block])  # rounding may lead behind the last of them
    return block * _BLOCK + min(place, int(possible[-1]))
