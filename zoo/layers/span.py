"""Which positions a call covers, and which keys each of them may see."""

from functools import cached_property
from typing import Any, Literal

from keras import ops

CacheLayout = Literal["buffer", "grow"]


class Span:
    """The positions of one forward call, worked out once and shared by all its layers.

    Three kinds of call:

    - no cache: the whole text at once; key j stands at position j.
    - `cache="buffer"`: past and present are one preallocated buffer. A row's sum of
      `attention_mask` is its number of valid positions after the call, and its new tokens stand at
      the end of them, so rows of different lengths may share a step. The first call is right
      padded.
    - `cache="grow"`: present is past with the new keys behind it. `attention_mask` says which slots
      hold a token; a token's position is the number of tokens before it, so padding may be on
      either side.

    Args:
        attention_mask: [B, T] with 1 for tokens, T = keys that may be seen. None: all, and then T =
            S.
        length: S, the number of new positions of each row.
        causal: Position i sees only positions up to i.
        cache: None, "buffer" or "grow".
    """

    def __init__(
        self, attention_mask: Any, length: Any, causal: bool, cache: CacheLayout | None = None
    ) -> None:
        if cache is not None and attention_mask is None:
            raise ValueError("a call with a cache needs attention_mask [batch, past + new]")
        self.attention_mask = attention_mask
        self.length = length
        self.causal = causal
        self.cache = cache
        self._allowed: dict[int | None, Any] = {}

    @cached_property
    def mask(self) -> Any:
        """`attention_mask` as int32."""
        return ops.cast(self.attention_mask, "int32")

    @cached_property
    def total(self) -> Any:
        """T: how many keys may be seen."""
        return self.length if self.attention_mask is None else ops.shape(self.attention_mask)[1]

    @cached_property
    def lengths(self) -> Any:
        """[B] valid positions of each row after the call."""
        return ops.sum(self.mask, axis=1)

    @cached_property
    def longest(self) -> Any:
        """How many positions the longest row has after the call."""
        return self.length if self.attention_mask is None else ops.max(self.lengths)

    @cached_property
    def newest(self) -> Any:
        """[B] position of each row's newest token."""
        return self.lengths - 1

    @cached_property
    def positions(self) -> Any:
        """[B or 1, S] position of each new token."""
        steps = ops.expand_dims(ops.arange(self.length, dtype="int32"), 0)
        if self.cache == "buffer":
            starts = ops.maximum(self.lengths - self.length, 0)
            return ops.expand_dims(starts, 1) + steps
        if self.cache == "grow":
            return self.key_positions[:, self.total - self.length :]
        return steps

    @cached_property
    def key_positions(self) -> Any:
        """[B or 1, T] position of each key."""
        if self.cache == "grow":
            return ops.maximum(ops.cumsum(self.mask, axis=1) - 1, 0)
        return ops.expand_dims(ops.arange(self.total, dtype="int32"), 0)

    @cached_property
    def distance(self) -> Any:
        """[B or 1, S, T] position of the query less that of the key."""
        return ops.expand_dims(self.positions, 2) - ops.expand_dims(self.key_positions, 1)

    @cached_property
    def last(self) -> Any:
        """[B] index, among the S new positions, of each row's last token."""
        if self.attention_mask is None:
            return ops.zeros_like(self.positions[:, 0]) + (self.length - 1)
        if self.cache == "buffer":
            return ops.clip(self.newest, 0, self.length - 1)
        new = self.mask[:, self.total - self.length :]
        steps = ops.expand_dims(ops.arange(self.length, dtype="int32"), 0)
        return ops.max(new * steps, axis=1)

    def allowed(self, window: int | None = None) -> Any:
        """Boolean [B or 1, 1, S, T]: which key each query may see; None where all of them."""
        if window not in self._allowed:
            self._allowed[window] = self._visible(window)
        return self._allowed[window]

    def _visible(self, window: int | None) -> Any:
        if self.cache == "buffer":  # slots behind the newest token are not filled yet
            near = self.distance >= 0
            parts = [near if window is None else near & (self.distance < window)]
        else:
            parts = []
            if self.attention_mask is not None:
                parts.append(ops.expand_dims(ops.cast(self.mask, "bool"), 1))
            if self.causal:
                parts.append(self._not_behind())
            if window is not None:
                reach = self.distance if self.causal else ops.abs(self.distance)
                parts.append(reach < window if self.causal else reach <= window)
        if not parts:
            return None
        allowed = parts[0]
        for part in parts[1:]:
            allowed = ops.logical_and(allowed, part)
        return ops.expand_dims(allowed, 1)

    def _not_behind(self) -> Any:
        """[1, S, T]: the key's slot is not behind the query's."""
        slots = ops.arange(self.total, dtype="int32")
        queries = slots[self.total - self.length :]
        return ops.expand_dims(ops.expand_dims(queries, 1) >= ops.expand_dims(slots, 0), 0)

    def update(self, past: Any, new: Any) -> Any:
        """Writes `new` [B, H, S, D] into the cache `past` [B, H, P, D], as the layout says; returns
        the present.
        """
        if self.cache == "grow":
            return new if past is None else ops.concatenate([past, new], axis=2)
        if past is None:  # a first call begins its buffer: room for `total` positions
            return ops.pad(new, ((0, 0), (0, 0), (0, self.total - self.length), (0, 0)))
        slots = ops.arange(ops.shape(past)[2], dtype="int32")
        hit = ops.expand_dims(self.positions, 2) == slots[None, None, :]  # (B, S, P)
        if isinstance(self.length, int) and self.length == 1:
            return ops.where(ops.expand_dims(ops.transpose(hit, (0, 2, 1)), 1), new, past)
        spread = ops.expand_dims(ops.cast(hit, new.dtype), 1)  # (B, 1, S, P)
        written = ops.matmul(ops.transpose(spread, (0, 1, 3, 2)), new)
        kept = ops.cast(ops.logical_not(ops.any(hit, axis=1)), new.dtype)
        return past * kept[:, None, :, None] + written

    def visible_part(self, cached: Any) -> Any:
        """The first T positions of a cache [B, H, P, D]."""
        return cached if self.cache == "grow" else cached[:, :, : self.total]
