"""Rows under way in one decoder graph: their keys and values, and the runs over them.

A row is one sequence. Rows 0 to `rows` - 1 are in use, each at a length of its own; a step appends
one token to the first of them, so whoever owns the rows keeps those that step in front. `Cache` is
the interface; `serve.decoding.buffers` and `serve.decoding.growing` are its two layouts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from serve.bundle.manifest import CacheSpec
from serve.decoding.memory import Memory
from serve.errors import BundleError, InputError
from serve.runtime.session import Session

if TYPE_CHECKING:
    from onnxruntime import OrtValue

HIDDEN = "last_hidden_state"
KEEP = "logits_to_keep"


class Cache(ABC):
    """Keys and values of up to `slots` rows of up to `capacity` positions.

    Args:
        decoder: The graph of steps.
        spec: The manifest's cache.
        slots: Most rows.
        capacity: Most positions of a row.
        reader: The graph that reads prompts, where it is another one.
        pad_token_id: What shorter prompts are filled up with.
        hidden: Keep the states that the head reads, in `states`: contrastive search needs them.

    Attributes:
        rows: Rows in use.
        lengths: Positions that each row holds, [slots].
        tokens: The tokens at them, [slots, capacity].
        states: With `hidden`: those of the last run, [rows, width] of a step, [time, width] of
            `extend`, [rows, time, width] of `add`.
    """

    def __init__(
        self,
        decoder: Session,
        spec: CacheSpec,
        slots: int,
        capacity: int,
        reader: Session | None = None,
        pad_token_id: int = 0,
        hidden: bool = False,
    ) -> None:
        self.decoder = decoder
        self.reader = reader or decoder
        self.slots, self.capacity = slots, min(spec.max_length, capacity)
        self.rows = 0
        self.lengths = np.zeros(slots, np.int64)
        self.tokens = np.zeros((slots, self.capacity), np.int64)
        self.shapes = cache_shapes(decoder, spec)
        self.memory = Memory(decoder)
        self.hidden = hidden
        self.states: np.ndarray | None = None
        self._pad = pad_token_id
        self._keeps = KEEP in decoder.overridable or KEEP in decoder.inputs
        if hidden and HIDDEN not in decoder.outputs:
            raise BundleError(
                f"{decoder.path.name} does not return its hidden states, which contrastive search "
                "compares: export the model again with hidden_states=True (--hidden-states)"
            )

    def add(
        self,
        prompts: Sequence[Sequence[int]],
        memory: Mapping[str, np.ndarray] | None = None,
        every: bool = False,
    ) -> np.ndarray:
        """Begin rows, behind those in use, and read their prompts together.

        Args:
            prompts: Tokens of every new row, at least one each.
            memory: For an encoder-decoder what the encoder gave of them, see `Memory.add`.
            every: Return the logits of all positions.

        Returns:
            Logits of each prompt's last token, [rows, vocabulary]; with `every` of all tokens,
            [rows, time, vocabulary].
        """
        first, count = self.rows, len(prompts)
        lengths = np.array([len(prompt) for prompt in prompts], np.int64)
        longest = int(lengths.max())
        self._refuse_beyond(longest)
        if first + count > self.slots:
            raise InputError(f"{first + count} rows are more than the {self.slots} slots")
        ids = np.full((count, longest), self._pad, np.int64)
        for line, prompt in enumerate(prompts):
            ids[line, : len(prompt)] = prompt
        self.memory.add(memory or {}, first)
        self.tokens[first : first + count, :longest] = ids
        self.lengths[first : first + count] = lengths
        self.rows += count
        logits = self._read(first, ids, lengths, every)
        if every:
            if logits.shape[1] != longest:
                raise BundleError(
                    f"{self.reader.path.name} returns the logits of the last position only"
                )
            return logits
        return logits[:, 0] if logits.shape[1] == 1 else logits[np.arange(count), lengths - 1]

    def begin(self, blocks: Sequence[np.ndarray] = (), tokens: Sequence[int] = ()) -> int:
        """Begin one row, empty or with what was `read` before; returns the row.

        Args:
            blocks: Keys and values of equally many positions each, in order.
            tokens: The tokens at all of these.
        """
        row = self.rows
        self.resize(row + 1)
        self.lengths[row] = len(tokens)
        self.tokens[row, : len(tokens)] = tokens
        if blocks:
            self._write(row, blocks, len(tokens) // len(blocks))
        return row

    def extend(
        self, row: int, ids: Sequence[int], every: bool = False, steps: bool = False
    ) -> np.ndarray:
        """Append several tokens to one row in one run.

        Args:
            row: A row in use.
            ids: At least one token.
            every: Return the logits of all the new positions.
            steps: By the graph of steps, not the one that reads prompts.

        Returns:
            Logits of the last token [vocabulary], or with `every` [time, vocabulary].
        """
        before = int(self.lengths[row])
        self._refuse_beyond(before + len(ids))
        self.tokens[row, before : before + len(ids)] = ids
        self.lengths[row] += len(ids)
        session = self.decoder if steps else self.reader
        logits = self._extend(row, np.array([ids], np.int64), every, session)
        return logits if every else logits[-1]

    def step(self, tokens: np.ndarray, by_reader: bool = False) -> np.ndarray:
        """Append one token to each of the first rows.

        Args:
            tokens: [rows], at most as many as there are rows.
            by_reader: Run the graph that reads prompts: faster for many rows.

        Returns:
            Logits [rows, vocabulary], valid until the next step: the memory is used again.
        """
        count = len(tokens)
        self._refuse_beyond(int(self.lengths[:count].max()) + 1)
        self.tokens[np.arange(count), self.lengths[:count]] = tokens
        self.lengths[:count] += 1
        return self._step(np.asarray(tokens, np.int64), self.reader if by_reader else self.decoder)

    def alike(self, row: int, tokens: np.ndarray) -> int:
        """How many positions a row and some tokens begin with alike."""
        both = min(int(self.lengths[row]), len(tokens))
        same = self.tokens[row, :both] == tokens[:both]
        return both if same.all() else int(same.argmin())

    def copy(self, source: int, target: int) -> None:
        """Make one row like another; what they share already, tokens alike, is not copied."""
        length = int(self.lengths[source])
        start = 0
        if self.memory.same(source, target):
            start = self.alike(target, self.tokens[source, :length])
        else:
            self.memory.follow(source, target)
        if start < length:
            self._copy(source, target, start, length)
        elif self.lengths[target] > length:
            self.trim(target, length)
        self.tokens[target, start:length] = self.tokens[source, start:length]
        self.lengths[target] = length

    def resize(self, rows: int) -> None:
        """Forget the last rows, or begin empty ones that read what the last row reads."""
        if rows > self.slots:
            raise InputError(f"{rows} rows are more than the {self.slots} slots")
        for row in range(self.rows, rows):
            self.memory.follow(row - 1, row)
        self.memory.shrink(rows)
        self.lengths[self.rows : rows] = 0
        self.rows = rows
        self._resized()

    def trim(self, row: int, length: int) -> None:
        """Forget what a row holds behind its first `length` positions."""
        self.lengths[row] = length

    @abstractmethod
    def read(self, row: int, start: int, stop: int) -> np.ndarray:
        """A row's keys and values of some positions, as one array of bytes."""

    @property
    def position_bytes(self) -> int:
        """Memory of one position of a row."""
        return sum(heads * dim * dtype.itemsize for heads, dim, dtype in self.shapes.values())

    @abstractmethod
    def _read(
        self, first: int, ids: np.ndarray, lengths: np.ndarray, every: bool
    ) -> np.ndarray: ...

    @abstractmethod
    def _extend(self, row: int, ids: np.ndarray, every: bool, session: Session) -> np.ndarray: ...

    @abstractmethod
    def _step(self, tokens: np.ndarray, session: Session) -> np.ndarray: ...

    @abstractmethod
    def _copy(self, source: int, target: int, start: int, stop: int) -> None: ...

    @abstractmethod
    def _write(self, row: int, blocks: Sequence[np.ndarray], length: int) -> None: ...

    def _resized(self) -> None:  # noqa: B027
        """Follow a new number of rows; a layout may have nothing to do."""

    def _refuse_beyond(self, positions: int) -> None:
        if positions > self.capacity:
            raise InputError(
                f"{positions} positions are more than the {self.capacity} that a row holds; "
                "shorten the prompt or lower max_new_tokens"
            )

    def _value(self, array: np.ndarray) -> OrtValue:
        """An array on the session's device; on the CPU the very same memory."""
        from onnxruntime import OrtValue

        return OrtValue.ortvalue_from_numpy(array, self.decoder.device, self.decoder.device_id)

    def _bind_keep(self, binding: Any, every: bool) -> None:
        if self._keeps:  # an overridable initializer is bound as an OrtValue only
            keep = self._value(np.array(0 if every else 1, np.int64))
            binding.bind_ortvalue_input(KEEP, keep)


def present_name(name: str) -> str:
    """The output that follows the input `past_key_values...`."""
    return "present" + name.removeprefix("past_key_values")


def cache_shapes(session: Session, spec: CacheSpec) -> dict[str, tuple[int, int, np.dtype]]:
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
