"""Which shapes the batches of an epoch have: buckets of length, decided once with numpy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zoo.data.columns import Columns, Settings

_MULTIPLE = 8  # widths are rounded up to this


@dataclass(frozen=True)
class Plan:
    """The shapes of the batches of an epoch; which examples they get is drawn per epoch."""

    pools: list[np.ndarray]  # examples of each bucket
    batch_size: int
    sizes: np.ndarray  # [steps] examples
    widths: np.ndarray  # [steps] padded length
    target_widths: np.ndarray  # [steps] padded length of targets


def _boundaries(
    lengths: np.ndarray, buckets: str | Sequence[int] | None, most: int | None, batch_size: int
) -> np.ndarray:
    """Padded lengths, rising, the last at least the longest row."""
    longest = int(lengths.max())
    if buckets is None:
        return np.array([most or _round_up(longest)])
    if isinstance(buckets, str):
        number = int(np.clip(len(lengths) // (4 * batch_size), 1, 5))
        cuts = np.quantile(lengths, np.linspace(0, 1, number + 1)[1:], method="higher")
        found = sorted({_round_up(int(cut)) for cut in cuts})
    else:
        found = [b for b in buckets if most is None or b < most]
        found = [*found, most] if most and (not found or found[-1] < longest) else found
    if most:
        found = sorted({min(b, most) for b in found})
    return np.array(found if found[-1] >= longest else [*found, longest])


def _round_up(length: int) -> int:
    return -(-length // _MULTIPLE) * _MULTIPLE


def make_plan(
    columns: Columns,
    settings: Settings,
    batch_size: int,
    buckets: str | Sequence[int] | None,
    shuffled: bool,
    drop_remainder: bool,
) -> Plan:
    """Decide the shapes of all batches; in order of the examples unless `shuffled`."""
    lengths, targets = columns.lengths, columns.target_lengths
    bounds = _boundaries(lengths, buckets, settings.max_length, batch_size)
    if targets is None:
        targets, target_bounds = np.zeros_like(lengths), np.zeros(1, int)
    else:
        kind = "auto" if buckets is not None else None
        target_bounds = _boundaries(targets, kind, settings.max_target_length, batch_size)
    total = len(lengths)
    if not shuffled:
        used = total - total % batch_size if drop_remainder else total
        starts = np.arange(0, used, batch_size)
        sizes = np.minimum(batch_size, used - starts)
        longest = np.maximum.reduceat(lengths[:used], starts) if used else starts
        widest = np.maximum.reduceat(targets[:used], starts) if used else starts
        widths = bounds[np.searchsorted(bounds, longest)]
        target_widths = target_bounds[np.searchsorted(target_bounds, widest)]
        return Plan([np.arange(used)], batch_size, sizes, widths, target_widths)
    bucket = np.searchsorted(bounds, lengths)
    pools = [np.flatnonzero(bucket == i) for i in range(len(bounds))]
    # What does not fill a batch moves up to the next bucket, so only the last batch can be short.
    sizes, widths, target_widths, carried, widest = [], [], [], 0, 0
    for bound, pool in zip(bounds, pools, strict=True):
        widest = max(widest, int(targets[pool].max(initial=0)))
        full, carried = divmod(carried + len(pool), batch_size)
        sizes += [batch_size] * full
        widths += [bound] * full
        target_widths += [target_bounds[np.searchsorted(target_bounds, widest)]] * full
    if carried and not drop_remainder:
        sizes.append(carried)
        widths.append(bounds[-1])
        target_widths.append(target_bounds[np.searchsorted(target_bounds, widest)])
    return Plan(pools, batch_size, np.array(sizes), np.array(widths), np.array(target_widths))
