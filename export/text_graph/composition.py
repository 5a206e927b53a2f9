"""Canonical order and composition: what NFC and its kin do to a decomposed text."""

import unicodedata
from functools import cache

import numpy as np
from onnx import TensorProto
from tokenizers import normalizers

from export.errors import ExportError
from export.text_graph.characters import Elements
from export.text_graph.tables import CHARACTERS, TOKEN, KeyTable, codes, look_up
from export.text_graph.wires import Wire, Wires

_WIDE = 1 << 21


@cache
def classes() -> np.ndarray:
    """Canonical combining classes in the library's version of Unicode, [CHARACTERS]: as ranks,
    starters have 0.

    They are found by what the library swaps; Python's own table only says where to look.
    """
    order = normalizers.NFD().normalize_str
    ladder: dict[int, str] = {}
    for code in range(0x300, 0xD800):
        number = unicodedata.combining(chr(code))
        known = number == 240 or order("\u0345" + chr(code)) == chr(code) + "\u0345"
        if number and known and order(chr(code)) == chr(code):  # not newer than the library
            ladder.setdefault(number, chr(code))
    marks = [ladder[number] for number in sorted(ladder)]
    ranks = np.zeros(CHARACTERS, np.int64)
    for code, count in codes():
        mark = chr(code)
        if code < 0x300 or count > 1:
            continue
        sinks = order(marks[-1] + mark) != marks[-1] + mark
        if order(mark) == mark and (sinks or order(mark + marks[0]) != mark + marks[0]):
            above = sum(order(other + mark) != other + mark for other in marks)
            ranks[code] = 1 + len(marks) - above
    return ranks


def reorder(graph: Wires, elements: Elements) -> Elements:
    """Marks behind a character in their canonical order."""
    rank = look_up(graph, classes(), elements.codes)
    starter = rank.equals(0) | ~graph.before(elements.pieces, -1).equals(elements.pieces)
    count = graph.size(rank)
    wide = int(classes().max()) + 1
    keys = graph.sums(graph.cast(starter)) * wide + rank
    keys = keys * graph.op("Max", count, 1) + graph.upto(count)
    _, order = graph.ops("TopK", keys, count, outputs=2, axis=0, largest=0, sorted=1)
    return Elements(graph.take(elements.codes, order), elements.rows, elements.pieces)


@cache
def compositions() -> dict[tuple[int, int], int]:
    """(character, mark behind it) -> their composition, in the library's version of Unicode."""
    compose, decompose = normalizers.NFC().normalize_str, normalizers.NFD().normalize_str
    found: dict[tuple[int, int], int] = {}
    for code, count in codes():
        character = chr(code)
        parts = decompose(character) if count == 1 else character
        if parts == character or compose(character) != character:
            continue
        head = compose(parts[:-1])
        if len(head) != 1 or compose(head + parts[-1]) != character:
            raise ExportError(f"U+{code:X} is composed of {parts!r} in a way that is not known")
        found[ord(head), ord(parts[-1])] = code
    return found


@cache
def _table() -> KeyTable:
    pairs = compositions()
    # Rounds merge all pairs at once: right where what a mark may merge into is no mark itself.
    ranks = classes()
    seconds = {second for _, second in pairs if not ranks[second]}
    clash = sorted(first for first, _ in pairs if first in seconds)
    if clash:
        raise ExportError(f"U+{clash[0]:X} both begins and ends compositions, which is not known")
    return KeyTable({first * _WIDE + second: code for (first, second), code in pairs.items()}, -1)


def compose(graph: Wires, elements: Elements) -> Elements:
    """Merges marks into the character before them, in rounds until none merges.

    A mark is out of reach behind one of its own class or of a higher one, and behind a place where
    the character has passed it by already.
    """
    table = _table()
    rank = look_up(graph, classes(), elements.codes)
    first = graph.full(0, graph.size(rank))

    def body(
        g: Wires, turn: Wire, codes_: Wire, rank: Wire, passed: Wire, rows: Wire, pieces: Wire
    ) -> tuple[Wire, list[Wire]]:
        here = g.upto(g.size(codes_))
        piece = ~g.before(pieces, -1).equals(pieces)
        starter = rank.equals(0) | piece
        # Each element's last starter strictly before it.
        places = g.join(g.positions(starter), [0])
        number = g.sums(g.cast(starter))
        base = g.take(places, g.op("Max", number - g.cast(starter) - 1, 0))
        head = g.take(codes_, base)
        keys = g.where(head < TOKEN, head, 0) * _WIDE + g.where(codes_ < TOKEN, codes_, 0)
        merged = table.look_up(g, keys)
        adjacent = base.equals(here - 1)
        free = adjacent | (~starter & (g.before(rank, 0) < rank))
        fits = (merged >= 0) & free & ~piece & passed.equals(0) & (base < here)
        # Of each character's marks the first that fits.
        none = g.size(codes_)
        order = g.where(fits, here, none)
        nearest = g.put(g.op("Expand", none, g.size(codes_)), base, order, "min")
        taken = fits & order.equals(g.take(nearest, base))
        target = g.keep(base, taken)
        codes_ = g.put(codes_, target, g.keep(merged, taken))
        # Marks before it were tried with the character as it was, and are not tried again.
        chosen = g.take(nearest, base)
        gone_by = (chosen < none) & (here < chosen) & ~starter
        passed = g.where(gone_by, 1, passed)
        kept = [g.keep(x, ~taken) for x in (codes_, rank, passed, rows, pieces)]
        return g.op("ReduceMax", g.cast(g.join(taken, [False])), keepdims=0) > 0, kept

    kinds = [TensorProto.INT64] * 5
    state = [elements.codes, rank, first, elements.rows, elements.pieces]
    codes_, _, _, rows, pieces = graph.loop(state, body, kinds)
    return Elements(codes_, rows, pieces)
