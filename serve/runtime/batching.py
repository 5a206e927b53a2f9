"""Groups requests of different lengths into batches that waste little on padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from serve.errors import InputError


def token_batches(sizes: Sequence[int], tokens: int, rows: int) -> Iterator[list[int]]:
    """Yield the positions of `sizes`, longest first, in batches.

    Args:
        sizes: Tokens of every request.
        tokens: Most positions of a batch, padding included; a longer request goes alone.
        rows: Most requests of a batch.
    """
    if tokens < 1 or rows < 1:
        raise InputError(f"a batch of {rows} rows and {tokens} tokens: expected at least 1 of each")
    order = sorted(range(len(sizes)), key=lambda at: -sizes[at])
    while order:
        longest = max(1, sizes[order[0]])
        count = max(1, min(rows, tokens // longest))
        yield order[:count]
        order = order[count:]
