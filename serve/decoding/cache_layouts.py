"""The two layouts of the key/value cache.

"buffer": past and present are one preallocated memory per layer, bound once as input and output; a
step rebinds only the mask. "grow": every run returns longer tensors, which become the next run's
past without leaving the device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from serve.decoding.cache import Decoding, present_name

if TYPE_CHECKING:
    from onnxruntime import OrtValue


class BufferDecoding(Decoding):
    """Cache layout "buffer": one memory per layer, written in place, each row at its own length."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._buffers: dict[str, OrtValue] = {}
        # Memory of the buffers, on the CPU: a view taken from an OrtValue would not keep it alive.
        self._arrays: dict[str, np.ndarray] = {}
        self._ids = np.zeros((0, 1), np.int64)
        self._logits: np.ndarray | None = None
        self._positions = np.arange(self.capacity)

    def _first(self, ids: np.ndarray, every: bool) -> np.ndarray:
        for name, (heads, dim, dtype) in self._shapes.items():
            shape = (self.batch, heads, self.capacity, dim)
            self._set_buffer(name, np.zeros(shape, dtype))
        self._binding.bind_output("logits")
        self._bind_buffers()
        self._bind_constants()
        self._bind_keep(every)
        self._binding.bind_cpu_input("input_ids", ids)
        self._binding.bind_cpu_input("attention_mask", self._mask())
        self._run(self.reader)
        logits = self._binding.get_outputs()[0].numpy()
        if self.reader is not self.session:
            self._rebind(logits.shape[-1], logits.dtype)
            return logits
        if every:
            self._bind_keep(False)
        self._bind_step(logits.shape[-1], logits.dtype)
        return logits

    def _next(self, tokens: np.ndarray, active: np.ndarray) -> np.ndarray:
        binding = self._binding
        self._ids[:, 0] = tokens
        if not self._on_host:  # binding copies to the device
            binding.bind_cpu_input("input_ids", self._ids)
        binding.bind_cpu_input("attention_mask", self._mask())
        self._run()
        assert self._logits is not None
        return self._logits[:, 0]

    def keep(self, rows: np.ndarray) -> None:
        """Drop all rows but these, which move to the front of the buffers."""
        vocabulary, dtype = self._logits_kind()
        for name in self._shapes:
            array = self._buffer(name)
            array[: len(rows)] = array[rows]
            self._set_buffer(name, array[: len(rows)])
        self.lengths = self.lengths[rows]
        self._keep_constants(rows)
        self._rebind(vocabulary, dtype)

    def _grow(self, capacity: int) -> None:
        for name in self._buffers:
            old = self._buffer(name)
            new = np.zeros((*old.shape[:2], capacity, old.shape[3]), old.dtype)
            new[:, :, : old.shape[2]] = old
            self._set_buffer(name, new)
        self.capacity = capacity
        self._positions = np.arange(capacity)
        if self._buffers:
            self._rebind(*self._logits_kind())

    def _width(self, active: np.ndarray) -> int:
        return int((self.lengths + active).max())

    def _mask(self) -> np.ndarray:
        """Ones up to each row's length: [batch, longest]."""
        longest = int(self.lengths.max())
        return (self._positions[:longest] < self.lengths[:, None]).astype(np.int64)

    def _rebind(self, vocabulary: int, dtype: np.dtype) -> None:
        self._binding = self.session.runtime.io_binding()
        self._bind_step(vocabulary, dtype)
        self._bind_buffers()
        self._bind_constants()
        self._bind_keep(False)

    def _bind_step(self, vocabulary: int, dtype: np.dtype) -> None:
        self._ids = np.zeros((self.batch, 1), np.int64)
        self._logits = logits = np.zeros((self.batch, 1, vocabulary), dtype)
        self._binding.bind_cpu_input("input_ids", self._ids)
        self._binding.bind_output(
            "logits", "cpu", 0, logits.dtype, logits.shape, logits.ctypes.data
        )

    def _buffer(self, name: str) -> np.ndarray:
        """A buffer's content; off the CPU a copy of it."""
        return self._arrays[name] if self._on_host else self._buffers[name].numpy()

    def _set_buffer(self, name: str, array: np.ndarray) -> None:
        self._buffers[name] = self._value(array)
        if self._on_host:
            self._arrays[name] = array

    def _bind_buffers(self) -> None:
        for name, value in self._buffers.items():
            self._binding.bind_ortvalue_input(name, value)
            self._binding.bind_ortvalue_output(present_name(name), value)

    def _logits_kind(self) -> tuple[int, np.dtype]:
        assert self._logits is not None
        return self._logits.shape[-1], self._logits.dtype


class GrowDecoding(Decoding):
    """Cache layout "grow": the graph appends to the past it is given; padding stays as holes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._valid = np.zeros((self.batch, self.capacity), np.int64)
        self._filled = 0
        self._past: list[OrtValue] = []
        self._names = [(name, present_name(name)) for name in self._shapes]

    def _first(self, ids: np.ndarray, every: bool) -> np.ndarray:
        self._past = [
            self._value(np.zeros((self.batch, heads, 0, dim), dtype))
            for heads, dim, dtype in self._shapes.values()
        ]
        self._filled = ids.shape[1]
        self._valid[:, : self._filled] = np.arange(self._filled) < self.lengths[:, None]
        self._bind_constants()
        self._bind_keep(every)
        logits = self._advance(ids)
        if every:
            self._bind_keep(False)
        return logits

    def _next(self, tokens: np.ndarray, active: np.ndarray) -> np.ndarray:
        self._valid[:, self._filled] = active
        self._filled += 1
        return self._advance(np.ascontiguousarray(tokens[:, None], np.int64))[:, 0]

    def _advance(self, ids: np.ndarray) -> np.ndarray:
        binding, session = self._binding, self.session
        binding.bind_cpu_input("input_ids", ids)
        mask = np.ascontiguousarray(self._valid[:, : self._filled])
        binding.bind_cpu_input("attention_mask", mask)
        binding.bind_output("logits")
        for (past, present), value in zip(self._names, self._past, strict=True):
            binding.bind_ortvalue_input(past, value)
            binding.bind_output(present, session.device, session.device_id)
        self._run()
        logits, *self._past = binding.get_outputs()
        return logits.numpy()

    def keep(self, rows: np.ndarray) -> None:
        """Drop all rows but these."""
        self._past = [self._value(value.numpy()[rows]) for value in self._past]
        self._valid = self._valid[rows]
        self.lengths = self.lengths[rows]
        self._keep_constants(rows)
        self._bind_constants()

    def _grow(self, capacity: int) -> None:
        more = np.zeros((self.batch, capacity - self.capacity), np.int64)
        self._valid = np.concatenate([self._valid, more], axis=1)
        self.capacity = capacity

    def _width(self, active: np.ndarray) -> int:
        return self._filled + 1


LAYOUTS: dict[str, type[Decoding]] = {"buffer": BufferDecoding, "grow": GrowDecoding}
