"""What decoder rows read of an encoder: its mask, and each layer's cross-attention keys and values.

One line is kept for each input; the rows of a beam search share theirs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from serve.runtime.session import Session

MASK = "encoder_attention_mask"


class Memory:
    """The encoder's results by decoder input, one line for each encoded input.

    Args:
        decoder: The graph that reads them. Where its axis of lines has a name of its own, it takes
            fewer lines than rows: row i then reads line i // (rows / lines).

    Attributes:
        version: Changes with the lines or the rows that read them.
    """

    def __init__(self, decoder: Session) -> None:
        self.version = 0
        self._arrays: dict[str, np.ndarray] = {}  # [lines, ...], padded to one width
        self._line: list[int] = []  # of each row
        inputs = decoder.inputs
        self.shared = MASK in inputs and inputs[MASK].shape[0] != inputs["input_ids"].shape[0]

    @property
    def lines(self) -> int:
        """Encoded inputs."""
        return max(self._line) + 1 if self._line else 0

    def add(self, arrays: Mapping[str, np.ndarray], first: int) -> None:
        """Add a line for each of some new rows.

        Args:
            arrays: By the decoder's input names: the mask [lines, time], keys and values
                [lines, heads, time, dim], states [lines, time, width]. Nothing for a decoder.
            first: The first of the new rows.
        """
        if not arrays:
            return
        lines = self.lines
        count = len(next(iter(arrays.values())))
        width = self._width(lines)
        for name, new in arrays.items():
            old = self._arrays.get(name)
            if lines and old is not None:
                self._arrays[name] = _joined(_narrowed(old[:lines], width), new)
            else:
                self._arrays[name] = new
        self._line[first:] = range(lines, lines + count)
        self.version += 1

    def same(self, row: int, other: int) -> bool:
        """Whether two rows read one line."""
        return not self._line or self._line[row] == self._line[other]

    def follow(self, source: int, target: int) -> None:
        """Let a row, perhaps a new one, read what another reads."""
        if not self._line:
            return
        freed = None
        if target == len(self._line):
            self._line.append(self._line[source])
        else:
            freed, self._line[target] = self._line[target], self._line[source]
        self.version += 1
        if freed is not None:
            self._free([freed])

    def shrink(self, rows: int) -> None:
        """Forget the rows from `rows` on, and lines that nobody reads any more."""
        if not self._line:
            return
        gone = set(self._line[rows:])
        del self._line[rows:]
        self.version += 1
        self._free(sorted(gone, reverse=True))
        if not self._line:
            self._arrays = {}

    def of(self, first: int, count: int) -> dict[str, np.ndarray]:
        """What some neighbouring rows are fed, by input name."""
        line = self._line[first : first + count]
        start, lines = min(line, default=0), len(set(line))
        each = count // lines if lines and self.shared else 1
        if line == [start + row // each for row in range(count)]:
            stop = start + count // each
            return {name: array[start:stop] for name, array in self._arrays.items()}
        return {name: array[line] for name, array in self._arrays.items()}

    def _width(self, lines: int) -> int | None:
        """What the longest of the first lines needs: a longer one may have left."""
        return (
            int(self._arrays[MASK][:lines].sum(1).max()) if lines and MASK in self._arrays else None
        )

    def _free(self, candidates: list[int]) -> None:
        """Fill lines without readers with the last lines."""
        for line in candidates:
            if line in self._line:
                continue
            last = self.lines - 1
            if last > line:
                for array in self._arrays.values():
                    array[line] = array[last]
                self._line = [line if one == last else one for one in self._line]


def _narrowed(array: np.ndarray, width: int | None) -> np.ndarray:
    """The first `width` places in time."""
    return array[:, :, :width] if array.ndim == 4 else array[:, :width]


def _joined(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Lines below one another, zeros where one is shorter in time."""
    time = 2 if old.ndim == 4 else 1
    width = max(old.shape[time], new.shape[time])
    return np.concatenate([widened(part, width, time) for part in (old, new)])


def widened(array: np.ndarray, width: int, axis: int = 2) -> np.ndarray:
    """Zeros behind, up to a width."""
    if array.shape[axis] == width:
        return array
    pads = [(0, width - array.shape[at] if at == axis else 0) for at in range(array.ndim)]
    return np.pad(array, pads)
