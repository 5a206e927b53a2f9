"""Keys and values of prompts' beginnings, kept for the next prompt that begins alike.

A prompt is kept in blocks of tokens. A block is found by its own tokens and the block before it, so
prompts that share a beginning share its blocks; what was not used for longest goes first, a block
never before those behind it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serve.decoding.cache import Cache
from serve.errors import InputError

BLOCK = 32  # tokens

Key = tuple[int, bytes]  # number of the block before (0: none), the block's tokens


@dataclass
class _Block:
    number: int
    content: np.ndarray  # of a row's positions, as `Cache.read` gives them


class PrefixCache:
    """Beginnings of prompts of one model, for all its engines; safe to use from several threads.

    Args:
        limit: Most bytes of keys and values.

    Attributes:
        held: Bytes of keys and values that are kept.
        hits: Tokens that were found.
        misses: Tokens that were looked for and not found.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise InputError(f"a prefix cache of {limit} bytes: expected at least 1")
        self.limit = limit
        self.held = self.hits = self.misses = 0
        self._blocks: OrderedDict[Key, _Block] = OrderedDict()  # least recently used first
        self._numbers = 0
        self._lock = threading.Lock()

    def knows(self, tokens: Sequence[int]) -> bool:
        """Whether a prompt begins with a block that is kept."""
        with self._lock:
            return bool(self._keys(tokens[: min(len(tokens) - 1, BLOCK)]))

    def find(self, tokens: Sequence[int]) -> list[np.ndarray]:
        """Contents of the blocks that a prompt begins with, in order; of its last token none."""
        with self._lock:
            found = [(key, self._blocks[key]) for key in self._keys(tokens[:-1])]
            for key, _ in reversed(found):  # the first block is the last to go
                self._blocks.move_to_end(key)
            self.hits += BLOCK * len(found)
            self.misses += len(tokens) - BLOCK * len(found)
            return [block.content for _, block in found]

    def keep(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Keep the whole blocks of a prompt that a row holds."""
        with self._lock:
            ids = np.asarray(tokens, np.int64)
            before = 0
            made: list[Key] = []
            for start in range(0, len(ids) - len(ids) % BLOCK, BLOCK):
                key = (before, ids[start : start + BLOCK].tobytes())
                block = self._blocks.get(key)
                if block is None:
                    content = cache.read(row, start, start + BLOCK)
                    if self.held + content.nbytes > self.limit and not self._room(
                        content.nbytes, made
                    ):
                        break
                    self._numbers += 1
                    block = self._blocks[key] = _Block(self._numbers, content)
                    self.held += content.nbytes
                made.append(key)
                before = block.number
            for key in reversed(made):
                self._blocks.move_to_end(key)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._blocks.clear()
            self.held = 0

    def _keys(self, tokens: Sequence[int]) -> list[Key]:
        """Keys of the blocks at the beginning that are kept."""
        ids = np.asarray(tokens, np.int64)
        before, keys = 0, []
        for start in range(0, len(ids) - len(ids) % BLOCK, BLOCK):
            key = (before, ids[start : start + BLOCK].tobytes())
            block = self._blocks.get(key)
            if block is None:
                break
            keys.append(key)
            before = block.number
        return keys

    def _room(self, size: int, used: list[Key]) -> bool:
        """Forget the least recently used blocks until `size` bytes fit, but none that is `used`."""
        kept = set(used)
        for key in [one for one in self._blocks if one not in kept]:
            if self.held + size <= self.limit:
                break
            self.held -= self._blocks.pop(key).content.nbytes
        return self.held + size <= self.limit
