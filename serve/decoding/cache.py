"""A batch under way: its key/value cache, and the runs of the decoder graph over it.

`Decoding` is the interface; `serve.decoding.cache_layouts` has the two layouts of the cache.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from serve.bundle.manifest import CacheSpec
from serve.errors import BundleError, InputError
from serve.runtime.session import Session, run_bound

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
        reader: The graph that reads prompts, where it is another one.

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
        reader: Session | None = None,
    ) -> None:
        self.session = session
        self.reader = reader or session
        self.limit = spec.max_length
        self.capacity = min(self.limit, capacity)
        self.lengths = np.zeros(batch, np.int64)
        self._constants = dict(constants or {})
        self._binding = self.reader.runtime.io_binding()
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
        self._refuse_beyond(ids.shape[1])
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
        self._refuse_beyond(int((self.lengths + active).max()))
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
        """Slots of the cache that the next step fills up to."""

    @abstractmethod
    def _grow(self, capacity: int) -> None: ...

    def _refuse_beyond(self, positions: int) -> None:
        if positions > self.limit:
            raise InputError(
                f"{positions} positions are more than the {self.limit} that the model can hold; "
                "shorten the prompt or lower max_new_tokens"
            )

    def _reserve(self, width: int) -> None:
        if width > self.capacity:
            self._grow(max(width, min(self.limit, 2 * self.capacity)))

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

    def _run(self, session: Session | None = None) -> None:
        run_bound(session or self.session, self._binding, f"lengths {self.lengths[:8].tolist()}")


def first_capacity(prompt: int, room: int, limit: int) -> int:
    """Positions to allocate at first: all that are needed, or fewer where very many may be."""
    return min(limit, prompt + min(room, max(_FIRST_ROOM, prompt)))


def present_name(name: str) -> str:
    return "present" + name.removeprefix("past_key_values")


def _cache_shapes(session: Session, spec: CacheSpec) -> dict[str, tuple[int, int, np.dtype]]:
    """(heads, head_dim, dtype) of every past input that has a present output."""
    shapes = {}
    for name, tensor in session.inputs.items():
        if not name.startswith("past_key_values.") or present_name(name) not in session.outputs:
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
