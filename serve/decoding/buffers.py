"""Cache layout "buffer": past and present are one preallocated memory, written in place.

A run is bound to the rows that it is about by their address, so rows need not be gathered, and what
was bound for so many rows is bound once. Memory that no row has used yet costs nothing: it is asked
for as zeros, which the system gives out page by page.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from serve.decoding.cache import HIDDEN, Cache, present_name
from serve.runtime.session import Session, run_bound

if TYPE_CHECKING:
    from onnxruntime import IOBinding, OrtValue

Shape = tuple[int, int, np.dtype]  # heads, head_dim, dtype


class Store(ABC):
    """Memory for the keys and values of all slots."""

    def __init__(self, shapes: dict[str, Shape], slots: int, capacity: int) -> None:
        self.shapes, self.slots, self.capacity = shapes, slots, capacity

    @abstractmethod
    def address(self, name: str) -> int:
        """Where a tensor [slots, heads, capacity, head_dim] begins."""

    @abstractmethod
    def copy(self, source: int, target: int, start: int, stop: int) -> None:
        """Copy positions of one row to another row."""

    @abstractmethod
    def read(self, row: int, start: int, stop: int) -> np.ndarray:
        """Positions of a row, as one array of bytes [bytes]."""

    @abstractmethod
    def write(self, row: int, block: np.ndarray, start: int, stop: int) -> None:
        """Write what `read` gave to positions of a row."""

    def bind(self, binding: IOBinding, session: Session, first: int, count: int) -> None:
        """Bind rows as past and present."""
        for name, (heads, dim, dtype) in self.shapes.items():
            row = heads * self.capacity * dim * dtype.itemsize
            place: Any = (session.device, session.device_id, dtype)
            place += ((count, heads, self.capacity, dim), self.address(name) + first * row)
            binding.bind_input(name, *place)
            binding.bind_output(present_name(name), *place)


class HostStore(Store):
    """Memory of this process: tensors of one shape lie in one array, and are copied by one call."""

    def __init__(self, shapes: dict[str, Shape], slots: int, capacity: int) -> None:
        super().__init__(shapes, slots, capacity)
        alike: dict[Shape, list[str]] = {}
        for name, shape in shapes.items():
            alike.setdefault(shape, []).append(name)
        self._groups: list[np.ndarray] = []
        self._tensors: dict[str, np.ndarray] = {}
        for (heads, dim, dtype), names in alike.items():
            group = np.zeros((len(names), slots, heads, capacity, dim), dtype)
            self._groups.append(group)
            self._tensors |= dict(zip(names, group, strict=True))

    def address(self, name: str) -> int:
        return int(self._tensors[name].ctypes.data)

    def copy(self, source: int, target: int, start: int, stop: int) -> None:
        for group in self._groups:
            group[:, target, :, start:stop] = group[:, source, :, start:stop]

    def read(self, row: int, start: int, stop: int) -> np.ndarray:
        parts = [group[:, row, :, start:stop] for group in self._groups]
        return _bytes(parts)

    def write(self, row: int, block: np.ndarray, start: int, stop: int) -> None:
        at = 0
        for group in self._groups:
            part = group[:, row, :, start:stop]
            size = part.size * part.itemsize
            part[...] = block[at : at + size].view(part.dtype).reshape(part.shape)
            at += size


class DeviceStore(Store):
    """Memory of a device; copying rows goes through the host, as ONNX Runtime offers no other way.

    Args:
        session: The graph whose device it is.
    """

    def __init__(
        self, shapes: dict[str, Shape], slots: int, capacity: int, session: Session
    ) -> None:
        from onnxruntime import OrtValue

        super().__init__(shapes, slots, capacity)
        self._values: dict[str, OrtValue] = {}
        self._zeros: list[np.ndarray] = []  # on the CPU a value borrows its array's memory
        for name, (heads, dim, dtype) in shapes.items():
            zeros = np.zeros((slots, heads, capacity, dim), dtype)
            value = OrtValue.ortvalue_from_numpy(zeros, session.device, session.device_id)
            self._values[name] = value
            self._zeros += [zeros] if session.device == "cpu" else []

    def address(self, name: str) -> int:
        return int(self._values[name].data_ptr())

    def copy(self, source: int, target: int, start: int, stop: int) -> None:
        for value in self._values.values():
            array = value.numpy()
            array[target, :, start:stop] = array[source, :, start:stop]
            value.update_inplace(array)

    def read(self, row: int, start: int, stop: int) -> np.ndarray:
        parts = [value.numpy()[row, :, start:stop] for value in self._values.values()]
        return _bytes(parts)

    def write(self, row: int, block: np.ndarray, start: int, stop: int) -> None:
        at = 0
        for value in self._values.values():
            array = value.numpy()
            part = array[row, :, start:stop]
            size = part.size * part.itemsize
            part[...] = block[at : at + size].view(part.dtype).reshape(part.shape)
            value.update_inplace(array)
            at += size


def _bytes(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ascontiguousarray(part).reshape(-1).view(np.uint8) for part in parts])


@dataclass
class _Bound:
    """A run of some rows, ready but for its tokens and mask."""

    binding: IOBinding
    ids: np.ndarray | None = None
    logits: np.ndarray | None = None
    states: np.ndarray | None = None
    memory: list[np.ndarray] = field(default_factory=list)  # a binding does not keep it alive
    version: int = -1


class BufferCache(Cache):
    """Rows in one preallocated memory; see the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.store: Store
        if self.decoder.device == "cpu":
            self.store = HostStore(self.shapes, self.slots, self.capacity)
        else:
            self.store = DeviceStore(self.shapes, self.slots, self.capacity, self.decoder)
        self._bound: dict[tuple[Session, int, int, bool], _Bound] = {}
        self._outputs: dict[str, np.ndarray] = {}  # of steps, [slots, 1, ...]: all write there
        self._places = np.arange(self.capacity)

    def read(self, row: int, start: int, stop: int) -> np.ndarray:
        """A row's keys and values of some positions, as one array of bytes."""
        return self.store.read(row, start, stop)

    def _read(self, first: int, ids: np.ndarray, lengths: np.ndarray, every: bool) -> np.ndarray:
        mask = self._mask(first, len(ids))
        return self._run(self.reader, first, ids, mask, every)

    def _extend(self, row: int, ids: np.ndarray, every: bool, session: Session) -> np.ndarray:
        mask = np.ones((1, int(self.lengths[row])), np.int64)
        logits = self._run(session, row, ids, mask, every)[0]
        if self.states is not None:
            self.states = self.states[0]
        return logits

    def _step(self, tokens: np.ndarray, session: Session) -> np.ndarray:
        count = len(tokens)
        bound = self._steps(session, count)
        assert bound.ids is not None and bound.logits is not None
        bound.ids[:, 0] = tokens
        if session.device != "cpu":  # binding copies to the device
            bound.binding.bind_cpu_input("input_ids", bound.ids)
        bound.binding.bind_cpu_input("attention_mask", self._mask(0, count))
        run_bound(session, bound.binding, f"a step of {count} rows")
        if bound.states is not None:
            self.states = bound.states[:, 0]
        return bound.logits[:, 0]

    def _copy(self, source: int, target: int, start: int, stop: int) -> None:
        self.store.copy(source, target, start, stop)

    def _write(self, row: int, blocks: Sequence[np.ndarray], length: int) -> None:
        for at, block in enumerate(blocks):
            self.store.write(row, block, at * length, (at + 1) * length)

    def _mask(self, first: int, count: int) -> np.ndarray:
        """Ones up to each row's length: [count, longest]."""
        lengths = self.lengths[first : first + count]
        return (self._places[: lengths.max()] < lengths[:, None]).astype(np.int64)

    def _steps(self, session: Session, count: int) -> _Bound:
        """The binding of a step of the first `count` rows, made once."""
        key = (session, 0, count, self.hidden)
        bound = self._bound.get(key)
        if bound is None:
            binding = session.runtime.io_binding()
            self.store.bind(binding, session, 0, count)
            self._bind_keep(binding, False)
            bound = _Bound(binding, np.zeros((count, 1), np.int64))
            bound.logits = _bind_output(binding, "logits", self._outputs["logits"][:count])
            if self.hidden:
                bound.states = _bind_output(binding, HIDDEN, self._outputs[HIDDEN][:count])
            binding.bind_cpu_input("input_ids", bound.ids)
            self._bound[key] = bound
        if bound.version != self.memory.version:
            for other in self._bound.values():
                if other.version != self.memory.version:
                    other.memory = []  # it is bound anew before it runs again
            bound.version = self.memory.version
            self._bind_memory(bound, 0, count)
        return bound

    def _run(
        self, session: Session, first: int, ids: np.ndarray, mask: np.ndarray, every: bool
    ) -> np.ndarray:
        """Run new tokens of some rows; ONNX Runtime gives memory to their logits."""
        count = len(ids)
        bound = _Bound(session.runtime.io_binding())
        binding = bound.binding
        binding.bind_output("logits")
        if self.hidden:
            binding.bind_output(HIDDEN)
        self.store.bind(binding, session, first, count)
        self._bind_keep(binding, every)
        self._bind_memory(bound, first, count)
        binding.bind_cpu_input("input_ids", ids)
        binding.bind_cpu_input("attention_mask", mask)
        run_bound(session, binding, f"{ids.shape[1]} tokens of {count} rows")
        outputs = binding.get_outputs()
        logits: np.ndarray = outputs[0].numpy()
        self._remember("logits", logits)
        if self.hidden:
            self.states = outputs[1].numpy()
            self._remember(HIDDEN, self.states)
        return logits

    def _remember(self, name: str, output: np.ndarray) -> None:
        """Make room for what steps will put out: a graph need not tell how wide that is."""
        if name not in self._outputs:
            self._outputs[name] = np.zeros((self.slots, 1, output.shape[-1]), output.dtype)

    def _bind_memory(self, bound: _Bound, first: int, count: int) -> None:
        lines = self.memory.of(first, count)
        bound.memory = [np.ascontiguousarray(array) for array in lines.values()]
        for name, array in zip(lines, bound.memory, strict=True):
            bound.binding.bind_ortvalue_input(name, self._value(array))


def _bind_output(binding: Any, name: str, array: np.ndarray) -> np.ndarray:
    binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    return array
