"""Weight tables: which variable of ours is which tensor of a checkpoint, read in both directions.

A row names our variables (paths below the model), their tensors, and a two-way transform. `{i}`
stands for a block's number, `{g}` and `{j}` for the run of shared blocks that it belongs to and its
place there, `{e}` for an expert's, `{h}` for a query head's and `{k}` for a key head's. A row whose
variables the model does not have (a bias that is off) does not count.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = list[np.ndarray]

COUNTED = {"{e}": "num_experts", "{h}": "num_heads", "{k}": "num_kv_heads"}
"""What a number in a tensor's name counts: the name of the fact that says how many there are."""


@dataclass(frozen=True)
class Transform:
    """How tensors become variables, and back.

    Attributes:
        name: For messages.
        load: (their arrays, config) -> our arrays.
        store: (our arrays, config) -> their arrays.
    """

    name: str
    load: Callable[[Arrays, Any], Arrays]
    store: Callable[[Arrays, Any], Arrays]


SAME = Transform("as it is", lambda arrays, _: arrays, lambda arrays, _: arrays)
TRANSPOSED = Transform(
    "transposed", lambda arrays, _: [arrays[0].T], lambda arrays, _: [arrays[0].T]
)
FLAT = Transform(
    "without axes of length 1",
    lambda arrays, _: [arrays[0].reshape(-1)],
    lambda arrays, _: [arrays[0].reshape(1, -1)],
)


def side_by_side(sizes: Callable[[Any], Sequence[int]], axis: int, transposed: bool) -> Transform:
    """Ours lie side by side in one of theirs.

    Args:
        sizes: config -> length of each of ours along `axis`.
        axis: The axis of theirs.
        transposed: Theirs are [out, in], ours [in, out].
    """

    def load(arrays: Arrays, config: Any) -> Arrays:
        parts = np.split(arrays[0], np.cumsum(sizes(config))[:-1], axis=axis)
        return [part.T if transposed else part for part in parts]

    def store(arrays: Arrays, config: Any) -> Arrays:
        return [np.concatenate([a.T if transposed else a for a in arrays], axis=axis)]

    return Transform("side by side", load, store)


def attention_sizes(config: Any) -> list[int]:
    """Widths of query, key and value."""
    kv = config.num_kv_heads * config.head_dim
    return [config.num_heads * config.head_dim, kv, kv]


def _heads_taken_in_turn(config: Any) -> tuple[int, int, int]:
    return config.num_kv_heads, config.num_heads // config.num_kv_heads, config.head_dim


def _load_turns(arrays: Arrays, config: Any) -> Arrays:
    groups, queries, width = _heads_taken_in_turn(config)
    rest = arrays[0].shape[1:]
    fused = arrays[0].reshape(groups, queries + 2, width, *rest)
    parts = fused[:, :queries], fused[:, queries], fused[:, queries + 1]
    return [np.ascontiguousarray(part).reshape(-1, *rest).T for part in parts]


def _store_turns(arrays: Arrays, config: Any) -> Arrays:
    groups, queries, width = _heads_taken_in_turn(config)
    query, key, value = (array.T for array in arrays)
    rest = query.shape[1:]
    parts = [
        query.reshape(groups, queries, width, *rest),
        key.reshape(groups, 1, width, *rest),
        value.reshape(groups, 1, width, *rest),
    ]
    return [np.concatenate(parts, axis=1).reshape(-1, *rest)]


HEADS_IN_TURN = Transform("query, key and value head by head", _load_turns, _store_turns)
"""GPT-NeoX, BLOOM, Falcon: each key head's queries, its key and its value, then the next head's."""


STACKED = Transform(
    "one tensor per row",
    lambda arrays, _: [np.stack(arrays)],
    lambda arrays, _: list(arrays[0]),
)

STACKED_EXPERTS = Transform(
    "one tensor per expert",
    lambda arrays, _: [np.stack([array.T for array in arrays])],
    lambda arrays, _: [array.T for array in arrays[0]],
)


@dataclass(frozen=True)
class Row:
    """One correspondence.

    Attributes:
        ours: Paths of variables.
        theirs: Names of tensors, without the base model's prefix unless `absolute`.
        how: The transform.
        absolute: The names stand outside the base model (heads).
        aliases: Further names under which a file may repeat the tensor (tied weights); they must be
            equal to it and are not written.
        unused: Names of tensors beside it that the reference keeps and never reads.
        when: config -> whether the row counts; None: always.
        default: config -> our arrays where a file lacks the tensors; None: it must have them.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    how: Transform = SAME
    absolute: bool = False
    aliases: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    when: Callable[[Any], bool] | None = None
    default: Callable[[Any], Arrays] | None = None


def tied(config: Any) -> bool:
    """For `Row.when`: the head is the token embedding."""
    return config.tie_embeddings


def untied(config: Any) -> bool:
    """For `Row.when`: the head has a kernel of its own."""
    return not config.tie_embeddings


def row(
    ours: str | Iterable[str],
    theirs: str | Iterable[str],
    how: Transform = SAME,
    aliases: Iterable[str] = (),
    unused: Iterable[str] = (),
    when: Callable[[Any], bool] | None = None,
    default: Callable[[Any], Arrays] | None = None,
) -> Row:
    """A `Row`; a single name may stand for itself."""

    def names(value: str | Iterable[str]) -> tuple[str, ...]:
        return (value,) if isinstance(value, str) else tuple(value)

    others = {"aliases": tuple(aliases), "unused": tuple(unused)}
    return Row(names(ours), names(theirs), how, when=when, default=default, **others)


def linear(ours: str, theirs: str, transposed: bool = True) -> tuple[Row, ...]:
    """Kernel and bias; theirs is [out, in] where `transposed`, else [in, out]."""
    return (
        row(f"{ours}/kernel", f"{theirs}.weight", TRANSPOSED if transposed else SAME),
        row(f"{ours}/bias", f"{theirs}.bias"),
    )


def fused(
    ours: Iterable[str],
    theirs: str,
    sizes: Callable[[Any], Sequence[int]],
    transposed: bool = True,
) -> tuple[Row, ...]:
    """Linear maps that lie side by side in one of theirs."""
    ours = list(ours)
    kernels = side_by_side(sizes, 0 if transposed else 1, transposed)
    return (
        row([f"{name}/kernel" for name in ours], f"{theirs}.weight", kernels),
        row([f"{name}/bias" for name in ours], f"{theirs}.bias", side_by_side(sizes, 0, False)),
    )


def norm(ours: str, theirs: str) -> tuple[Row, ...]:
    """Scale and offset."""
    return (row(f"{ours}/scale", f"{theirs}.weight"), row(f"{ours}/offset", f"{theirs}.bias"))


def outside(*rows: Row) -> tuple[Row, ...]:
    """Rows whose tensors do not carry the base model's prefix."""
    return tuple(dataclasses.replace(entry, absolute=True) for entry in rows)


def when(condition: Callable[[Any], bool], *rows: Row) -> tuple[Row, ...]:
    """Rows that count for some configs alone."""
    return tuple(dataclasses.replace(entry, when=condition) for entry in rows)


def qkv(block: str) -> list[str]:
    """Paths of a block's query, key and value projections."""
    return [f"{block}/attention/{name}" for name in ("query", "key", "value")]


@dataclass(frozen=True)
class Entry:
    """A row of one model: existing variables, full names."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    how: Transform
    aliases: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    default: Callable[[Any], Arrays] | None = None


def expand(
    rows: Iterable[Row], paths: Mapping[str, Any], config: Any, prefix: str
) -> Iterator[Entry]:
    """The entries of a model: rows with numbers in place of `{i}` and `{e}`, and the prefix.

    Args:
        rows: The table.
        paths: Our variables by path.
        config: The model's facts.
        prefix: The base model's prefix, with its dot, or "".
    """
    count = 1 + max(
        (int(n) for path in paths for n in re.findall(r"block_(\d+)/", path)), default=0
    )
    for entry in rows:
        if entry.when is not None and not entry.when(config):
            continue
        numbered = any("{i}" in name for name in entry.ours)
        for i in range(count if numbered else 1):
            ours = tuple(name.replace("{i}", str(i)) for name in entry.ours)
            if not any(name in paths for name in ours):
                continue
            head = "" if entry.absolute else prefix
            yield Entry(
                ours,
                tuple(head + name for name in _numbered(entry.theirs, i, config)),
                entry.how,
                tuple(name.replace("{i}", str(i)) for name in entry.aliases),
                tuple(name.replace("{i}", str(i)) for name in entry.unused),
                entry.default,
            )


def _numbered(names: Iterable[str], i: int, config: Any) -> Iterator[str]:
    for name in names:
        group, place = divmod(i, config.blocks_in_turn)
        name = name.replace("{i}", str(i)).replace("{g}", str(group)).replace("{j}", str(place))
        for mark, count in COUNTED.items():
            if mark in name:
                numbers = range(getattr(config, count))
                yield from (name.replace(mark, str(number)) for number in numbers)
                break
        else:
            yield name
