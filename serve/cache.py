"""The key/value cache of a batch under way, and the runs of the decoder graph over it.

Two layouts, one interface. "buffer": past and present are one preallocated memory per layer, bound
once as input and output; a step rebinds only the mask. "grow": every run returns longer tensors,
which become the next run's past without leaving the device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from serve.errors import BundleError, InputError
from serve.manifest import CacheSpec
from serve.session import Session, run_bound

if TYPE_CHECKING:
    from onnxruntime import OrtValue

_FIRST_ROOM = 512  # positions a cache starts with beyond the prompt, before it grows by doubling


class Decoding(ABC):
    """Rows that are decoded together; each row has a length of its own.

    Args:
        session: The decoder graph.
        spec: The manifest's cache.
        batch: Rows.
        capacity: Positions needed in all, as far as known.
        constants: What is fed unchanged to every run, by input name: for an encoder-decoder the
            encoder's mask and the cross-attention keys and values. Axis 0 is the batch.

    Attributes:
        lengths: Valid positions per row, [batch].
    """

    def __init__(
        self,
        session: Session,
        spec: CacheSpec,
        batch: int,
        capacity: int,
        constants: Mapping[str, OrtValue] | None = None,
    ) -> None:
        self.session = session
        self.limit = spec.max_length
        self.capacity = min(self.limit, capacity)
        self.lengths = np.zeros(batch, np.int64)
        self._constants = dict(constants or {})
        self._binding = session.runtime.io_binding()
        self._shapes = _cache_shapes(session, spec)
        keeps = "logits_to_keep"
        self._keeps = keeps in session.overridable or keeps in session.inputs
        self._on_host = session.device == "cpu"

    @property
    def batch(self) -> int:
        """Rows still under way."""
        return len(self.lengths)

    def prefill(self, ids: np.ndarray, lengths: np.ndarray, every: bool = False) -> np.ndarray:
        """Run the prompts: the first call, on an empty cache.

        Args:
            ids: [batch, time], right padded.
            lengths: Tokens per row, [batch].
            every: Return the logits of all positions.

        Returns:
            Logits of each row's last token, [batch, vocabulary]; with `every` of all tokens,
            [batch, time, vocabulary].
        """
        self._reserve(ids.shape[1])
        self.lengths = lengths.astype(np.int64)
        logits = self._first(np.ascontiguousarray(ids, np.int64), every)
        if every:
            if logits.shape[1] != ids.shape[1]:
                raise BundleError(
                    f"{self.session.path.name} returns the logits of the last position only"
                )
            return logits
        if logits.shape[1] == 1:
            return logits[:, 0]
        return logits[np.arange(self.batch), self.lengths - 1]

    def step(self, tokens: np.ndarray, active: np.ndarray | None = None) -> np.ndarray:
        """Append one token to every active row.

        Args:
            tokens: [batch]; those of inactive rows do not matter.
            active: [batch] of bool; all by default.

        Returns:
            Logits [batch, vocabulary], valid until the next step: the memory is used again.
        """
        if active is None:
            active = np.ones(self.batch, np.bool_)
        self._reserve(self._width(active))
        self.lengths += active
        return self._next(tokens, active)

    @abstractmethod
    def keep(self, rows: np.ndarray) -> None:
        """Drop all rows but these."""

    @abstractmethod
    def _first(self, ids: np.ndarray, every: bool) -> np.ndarray: ...

    @abstractmethod
    def _next(self, tokens: np.ndarray, active: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def _width(self, active: np.ndarray) -> int:
        """Positions that the next step takes."""

    @abstractmethod
    def _grow(self, capacity: int) -> None: ...

    def _reserve(self, width: int) -> None:
        if width > self.limit:
            raise InputError(
                f"{width} positions are more than the {self.limit} that the model can hold; "
                "shorten the prompt or lower max_new_tokens"
            )
        if width > self.capacity:
            self._grow(min(self.limit, max(width, 2 * self.capacity)))

    def _value(self, array: np.ndarray) -> OrtValue:
        """An array on the session's device; on the CPU the very same memory."""
        from onnxruntime import OrtValue

        return OrtValue.ortvalue_from_numpy(array, self.session.device, self.session.device_id)

    def _bind_constants(self) -> None:
        for name, value in self._constants.items():
            self._binding.bind_ortvalue_input(name, value)

    def _bind_keep(self, every: bool) -> None:
        if self._keeps:  # an overridable initializer is bound as an OrtValue only
            self._keep_count = self._value(np.array(0 if every else 1, np.int64))
            self._binding.bind_ortvalue_input("logits_to_keep", self._keep_count)

    def _keep_constants(self, rows: np.ndarray) -> None:
        self._constants = {
            name: self._value(value.numpy()[rows]) for name, value in self._constants.items()
        }

    def _run(self) -> None:
        run_bound(self.session, self._binding, f"lengths {self.lengths[:8].tolist()}")


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
        self._run()
        logits = self._binding.get_outputs()[0].numpy()
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
            self._binding.bind_ortvalue_output(_present(name), value)

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
        self._names = [(name, _present(name)) for name in self._shapes]

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


def first_capacity(prompt: int, room: int, limit: int) -> int:
    """Positions to allocate at first: all that are needed, or fewer where very many may be."""
    return min(limit, prompt + min(room, max(_FIRST_ROOM, prompt)))


def _present(name: str) -> str:
    return "present" + name.removeprefix("past_key_values")


def _cache_shapes(session: Session, spec: CacheSpec) -> dict[str, tuple[int, int, np.dtype]]:
    """(heads, head_dim, dtype) of every past input that has a present output."""
    shapes = {}
    for name, tensor in session.inputs.items():
        if not name.startswith("past_key_values.") or _present(name) not in session.outputs:
            continue
        heads, dim = tensor.shape[1], tensor.shape[3]
        shapes[name] = (
            heads if isinstance(heads, int) else spec.num_kv_heads,
            dim if isinstance(dim, int) else spec.head_dim,
            tensor.dtype,
        )
    if not shapes or "logits" not in session.outputs:
        raise BundleError(
            f"{session.path.name} has no cache: expected inputs past_key_values.0.key ... with "
            f"outputs present.0.key ... and logits; found {list(session.inputs)[:8]}"
        )
    return shapes
