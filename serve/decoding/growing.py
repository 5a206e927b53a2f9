"""Cache layout "grow": every run returns longer keys and values, the past of the next run.

Rows of different lengths share a step by a mask: what a row does not hold are holes in it, which
are closed once they are many. Moving a row copies it, as this layout does at every step anyhow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from serve.decoding.cache import HIDDEN, Cache, present_name
from serve.decoding.memory import widened
from serve.runtime.session import Session, run_bound

if TYPE_CHECKING:
    from onnxruntime import OrtValue

_HOLES = 64  # columns without use that are borne before they are closed


class GrowCache(Cache):
    """Rows in tensors [rows, heads, time, head_dim] and a mask [rows, time] of what is held."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._names = [(name, present_name(name)) for name in self.shapes]
        self._held = np.zeros((0, 0), bool)
        self._arrays: list[np.ndarray] | None = None
        self._values: list[OrtValue] = []  # the last step's, while no row was touched since
        self._past = [np.zeros((0, h, 0, d), dtype) for h, d, dtype in self.shapes.values()]

    @property
    def _past(self) -> list[np.ndarray]:
        if self._arrays is None:
            self._arrays = [value.numpy() for value in self._values]
        self._values = []  # an array may be written to
        return self._arrays

    @_past.setter
    def _past(self, arrays: list[np.ndarray]) -> None:
        self._arrays, self._values = arrays, []

    def read(self, row: int, start: int, stop: int) -> np.ndarray:
        """A row's keys and values of some positions, as one array of bytes."""
        at = np.flatnonzero(self._held[row])[start:stop]
        parts = [np.ascontiguousarray(past[row][:, at]) for past in self._past]
        return np.concatenate([part.reshape(-1).view(np.uint8) for part in parts])

    def trim(self, row: int, length: int) -> None:
        """Forget what a row holds behind its first `length` positions."""
        super().trim(row, length)
        self._held[row, np.flatnonzero(self._held[row])[length:]] = False

    def _read(self, first: int, ids: np.ndarray, lengths: np.ndarray, every: bool) -> np.ndarray:
        past = [np.zeros((len(ids), h, 0, d), dtype) for h, d, dtype in self.shapes.values()]
        mask = np.arange(ids.shape[1]) < lengths[:, None]
        logits, present = self._run(self.reader, first, ids, mask, past, every)
        self._append([value.numpy() for value in present], mask)
        return logits

    def _extend(self, row: int, ids: np.ndarray, every: bool, session: Session) -> np.ndarray:
        at = np.flatnonzero(self._held[row])
        past = [array[row : row + 1][:, :, at] for array in self._past]
        mask = np.ones((1, len(at) + ids.shape[1]), bool)
        logits, present = self._run(session, row, ids, mask, past, every)
        self._set(row, [value.numpy() for value in present])
        if self.states is not None:
            self.states = self.states[0]
        return logits[0]

    def _step(self, tokens: np.ndarray, session: Session) -> np.ndarray:
        count = len(tokens)
        if self._held.shape[1] - self._held.sum(1).max(initial=0) > _HOLES:
            self._close()
        mask = np.concatenate([self._held[:count], np.ones((count, 1), bool)], axis=1)
        ids = tokens[:, None]
        if count == self.rows:
            past: list[Any] = self._values or self._past
            logits, self._values = self._run(session, 0, ids, mask, past, False)
            self._arrays, self._held = None, mask
        else:  # rows behind, still being read
            logits, values = self._run(
                session, 0, ids, mask, [array[:count] for array in self._past], False
            )
            self._held = np.concatenate([mask, widened(self._held[count:], mask.shape[1], axis=1)])
            self._past = [
                np.concatenate([value.numpy(), widened(old[count:], mask.shape[1])])
                for value, old in zip(values, self._past, strict=True)
            ]
        if self.states is not None:
            self.states = self.states[:, 0]
        return logits[:, 0]

    def _copy(self, source: int, target: int, start: int, stop: int) -> None:
        for past in self._past:
            past[target] = past[source]
        self._held[target] = self._held[source]

    def _write(self, row: int, blocks: Sequence[np.ndarray], length: int) -> None:
        whole: list[list[np.ndarray]] = [[] for _ in self.shapes]
        for block in blocks:
            at = 0
            for parts, (heads, dim, dtype) in zip(whole, self.shapes.values(), strict=True):
                size = heads * length * dim * dtype.itemsize
                parts.append(block[at : at + size].view(dtype).reshape(1, heads, length, dim))
                at += size
        self._set(row, [np.concatenate(parts, axis=2) for parts in whole])

    def _resized(self) -> None:
        more = self.rows - len(self._held)
        if more > 0:
            empty = [np.zeros((more, *past.shape[1:]), past.dtype) for past in self._past]
            self._append(empty, False)
        elif more < 0:
            self._past = [past[: self.rows] for past in self._past]
            self._held = self._held[: self.rows]
            if not self.rows:
                self._close()

    def _set(self, row: int, present: list[np.ndarray]) -> None:
        """Let a row hold what fills `present` [1, heads, time, head_dim]."""
        length = present[0].shape[2]
        width = max(self._held.shape[1], length)
        self._past = [widened(past, width) for past in self._past]
        self._held = widened(self._held, width, axis=1)
        for past, new in zip(self._past, present, strict=True):
            past[row, :, :length] = new[0]
        self._held[row] = np.arange(width) < length

    def _append(self, rows: list[np.ndarray], held: Any) -> None:
        """Add rows [count, heads, time, head_dim] that hold what the mask says."""
        width = max(self._held.shape[1], rows[0].shape[2])
        new = np.zeros((len(rows[0]), width), bool)
        new[:, : rows[0].shape[2]] = held
        self._held = np.concatenate([widened(self._held, width, axis=1), new])
        self._past = [
            np.concatenate([widened(past, width), widened(more, width)])
            for past, more in zip(self._past, rows, strict=True)
        ]

    def _close(self) -> None:
        """Move what each row holds to the front, and cut what nobody holds."""
        width = int(self._held.sum(1).max(initial=0))
        order = np.argsort(~self._held, axis=1, kind="stable")[:, :width]
        self._past = [
            np.take_along_axis(past, order[:, None, :, None], axis=2) for past in self._past
        ]
        self._held = np.take_along_axis(self._held, order, axis=1)

    def _run(
        self,
        session: Session,
        first: int,
        ids: np.ndarray,
        mask: np.ndarray,
        past: Sequence[np.ndarray | OrtValue],
        every: bool,
    ) -> tuple[np.ndarray, list[OrtValue]]:
        """Run new tokens of some rows; returns their logits and the longer keys and values."""
        binding = session.runtime.io_binding()
        lines = {
            name: self._value(np.ascontiguousarray(array))
            for name, array in self.memory.of(first, len(ids)).items()
        }
        held = [
            self._value(np.ascontiguousarray(one)) if isinstance(one, np.ndarray) else one
            for one in past
        ]
        binding.bind_output("logits")
        if self.hidden:
            binding.bind_output(HIDDEN)
        for (name, present), value in zip(self._names, held, strict=True):
            binding.bind_ortvalue_input(name, value)
            binding.bind_output(present, session.device, session.device_id)
        for name, value in lines.items():
            binding.bind_ortvalue_input(name, value)
        self._bind_keep(binding, every)
        binding.bind_cpu_input("input_ids", np.ascontiguousarray(ids, np.int64))
        binding.bind_cpu_input("attention_mask", mask.astype(np.int64))
        run_bound(session, binding, f"{ids.shape[1]} tokens of {len(ids)} rows")
        logits, *present = binding.get_outputs()
        if self.hidden:
            states, *present = present
            self.states = states.numpy()
        return logits.numpy(), present
