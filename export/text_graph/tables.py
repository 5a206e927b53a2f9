"""Look-up tables that a graph reads with `Gather`: by character, and by pairs of numbers."""

import random
from collections.abc import Iterable, Mapping
from functools import cache

import numpy as np
from onnx import TensorProto

from export.errors import ExportError
from export.text_graph.wires import Wire, Wires

CHARACTERS = 0x110000
TOKEN = CHARACTERS
"""The element TOKEN + i is no character but the token i, found in the text as it is."""
_PAGE = 256
_EMPTY = (0x40000, 0xE0000), (0xE1000, CHARACTERS)
"""Ranges without characters, whose pages are of one kind each: one code of a page is asked."""


@cache
def codes() -> list[tuple[int, int]]:
    """All code points to ask about, with the number of codes that each answer is for."""
    found = [(code, 1) for code in range(_EMPTY[0][0]) if not 0xD800 <= code < 0xE000]
    found += [(code, 1) for code in range(_EMPTY[0][1], _EMPTY[1][0])]
    return found + [(code, _PAGE) for first, end in _EMPTY for code in range(first, end, _PAGE)]


def by_character(answers: np.ndarray) -> np.ndarray:
    """Answers about `codes()` as values of every character, [CHARACTERS]; surrogates have 0."""
    firsts, counts = np.array(codes()).T
    values = np.zeros(CHARACTERS, np.int64)
    values[np.repeat(firsts, counts) + _within(counts)] = np.repeat(answers, counts)
    return values


def _within(counts: np.ndarray) -> np.ndarray:
    """0, 1, ... within each run."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def look_up(graph: Wires, values: np.ndarray, elements: Wire, token: int = 0) -> Wire:
    """Each element's value, in pages of which equal ones are stored once.

    Args:
        graph: Where to.
        values: [CHARACTERS] integers.
        elements: [N] characters and tokens.
        token: The value of tokens.
    """
    everything = np.append(values, np.full(_PAGE, token)).reshape(-1, _PAGE)
    kinds: dict[bytes, int] = {}
    index = np.array([kinds.setdefault(page.tobytes(), len(kinds)) for page in everything])
    pages = np.frombuffer(b"".join(kinds), np.int64)
    kind = np.int16 if abs(pages).max() < 1 << 15 else np.int32
    codes_ = graph.op("Min", elements, CHARACTERS)
    page = codes_ // _PAGE
    place = graph.take((index - np.arange(len(index))) * _PAGE, page) + codes_
    return graph.cast(graph.take(pages.astype(kind), place))


class KeyTable:
    """Values by key, found in two places at most (cuckoo hashing, Pagh and Rodler, 2004).

    Args:
        entries: key (not negative) -> value.
        missing: The value of other keys.
    """

    def __init__(self, entries: Mapping[int, int], missing: int) -> None:
        self.missing = missing
        size = max(7, int(len(entries) * 1.3))
        for _ in range(40):
            self.sizes = _prime(size), _prime(size + size // 9 + 2)
            placed = _place(entries, self.sizes)
            if placed is not None:
                self.keys, self.values = placed
                return
            size = int(size * 1.15) + 1
        raise ExportError(f"no table found for {len(entries)} keys")

    def look_up(self, graph: Wires, keys: Wire) -> Wire:
        """Values of keys [N]; `missing` for unknown ones."""
        first = keys % self.sizes[0]
        second = keys % self.sizes[1] + self.sizes[0]
        here = graph.take(self.keys, first).equals(keys)
        place = graph.where(here, first, second)
        there = graph.take(self.keys, place).equals(keys)
        return graph.where(there, graph.cast(graph.take(self.values, place)), self.missing)


def _place(
    entries: Mapping[int, int], sizes: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray] | None:
    slots: list[int] = [-1] * sum(sizes)
    draw = random.Random(0)
    for key in entries:
        moving = key
        for _ in range(200):
            places = moving % sizes[0], moving % sizes[1] + sizes[0]
            free = [place for place in places if slots[place] < 0]
            if free:
                slots[free[0]] = moving
                break
            place = draw.choice(places)
            moving, slots[place] = slots[place], moving
        else:
            return None
    keys = np.array(slots, np.int64)
    values = np.array([entries.get(key, 0) for key in slots], np.int64)
    return keys, values.astype(np.int32)


def _prime(least: int) -> int:
    number = least | 1
    while any(number % divisor == 0 for divisor in range(3, int(number**0.5) + 1, 2)):
        number += 2
    return number


class Trie:
    """Longest entries that begin at each element, for all elements at once.

    Args:
        entries: (root, symbols, value): a value may begin at several roots, numbered from 0.
        roots: How many roots there are.
    """

    def __init__(self, entries: Iterable[tuple[int, tuple[int, ...], int]], roots: int = 1) -> None:
        alphabet: dict[int, int] = {}
        edges: dict[tuple[int, int], int] = {}
        values: list[int] = [-1] * roots
        self.longest = 0
        for root, symbols, value in entries:
            node = root
            for symbol in symbols:
                letter = alphabet.setdefault(symbol, len(alphabet) + 1)
                following = edges.get((node, letter))
                if following is None:
                    following = len(values)
                    edges[node, letter] = following
                    values.append(-1)
                node = following
            values[node] = value
            self.longest = max(self.longest, len(symbols))
        self.alphabet = alphabet
        self._wide = len(alphabet) + 1
        self._dead = len(values)
        self._values = np.array([*values, -1], np.int64)
        self._table = KeyTable(
            {node * self._wide + letter: to for (node, letter), to in edges.items()}, self._dead
        )

    def letters(self, graph: Wires, elements: Wire) -> Wire:
        """The elements as the trie numbers them; 0 for those that no entry has."""
        values = np.zeros(CHARACTERS, np.int64)
        for code, letter in self.alphabet.items():
            values[code] = letter
        return look_up(graph, values, elements)

    def step(self, graph: Wires, nodes: Wire, letters: Wire) -> tuple[Wire, Wire]:
        """The nodes behind, and their values (-1: none)."""
        following = self._table.look_up(graph, nodes * self._wide + letters)
        return following, graph.take(self._values, following)

    def all_at(self, graph: Wires, letters: Wire, roots: Wire, room: Wire) -> Wire:
        """[K, N] values of the entries with k + 1 symbols that begin at each element, -1 for none;
        K is that of the longest found, at least 1. Arguments as for `longest_at`.
        """
        count = graph.size(letters)

        def body(g: Wires, turn: Wire, alive: Wire, nodes: Wire) -> tuple[Wire, list[Wire]]:
            nodes, found = self.step(g, nodes, g.take(letters, alive + turn))
            values = g.put(g.full(-1, count), alive, found)
            alive, nodes, going = self._left(g, turn, alive, nodes, room)
            return going, [alive, nodes, values]

        kinds = [TensorProto.INT64] * 3
        return graph.loop([graph.upto(count), roots], body, kinds)[2]

    def longest_at(self, graph: Wires, letters: Wire, roots: Wire, room: Wire) -> tuple[Wire, Wire]:
        """Lengths (0: none) and values (-1: none) of the longest entries at each element.

        Args:
            graph: Where to.
            letters: [N], see `letters`.
            roots: [N] where to begin.
            room: [N] how many elements an entry may cover, at least 1.
        """
        count = graph.size(letters)

        def body(
            g: Wires, turn: Wire, alive: Wire, nodes: Wire, length: Wire, value: Wire
        ) -> tuple[Wire, list[Wire]]:
            nodes, found = self.step(g, nodes, g.take(letters, alive + turn))
            hit = found >= 0
            at = g.keep(alive, hit)
            length = g.put(length, at, g.op("Expand", turn + 1, g.op("Shape", at)))
            value = g.put(value, at, g.keep(found, hit))
            alive, nodes, going = self._left(g, turn, alive, nodes, room)
            return going, [alive, nodes, length, value]

        state = [graph.upto(count), roots, graph.full(0, count), graph.full(-1, count)]
        _, _, length, value = graph.loop(state, body, [TensorProto.INT64] * 4)
        return length, value

    def _left(
        self, g: Wires, turn: Wire, alive: Wire, nodes: Wire, room: Wire
    ) -> tuple[Wire, Wire, Wire]:
        """Where entries may be longer still, and whether there is such a place."""
        stays = (nodes < self._dead) & (g.take(room, alive) > turn + 1)
        alive = g.keep(alive, stays)
        return alive, g.keep(nodes, stays), g.op("Size", alive) > 0
