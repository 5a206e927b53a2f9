"""Tokens that are found in a text as they are written: "[MASK]", "<s>"."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from export.errors import ExportError
from export.text_graph.characters import Elements
from export.text_graph.tables import CHARACTERS, TOKEN, Trie, look_up
from export.text_graph.wires import Wire, Wires

WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""Characters of Unicode's property White_Space, which a token with `lstrip` takes in."""


def flags(characters: Iterable[str]) -> np.ndarray:
    """1 for these characters, [CHARACTERS]."""
    values = np.zeros(CHARACTERS, np.int64)
    values[[ord(character) for character in characters]] = 1
    return values


def extract(
    graph: Wires, elements: Elements, tokens: Sequence[Mapping[str, Any]], written: Sequence[str]
) -> Elements:
    """Puts one element for each token that is found, leftmost first, the longest at each place.

    Args:
        graph: Where to.
        elements: The texts.
        tokens: Entries of `added_tokens` in tokenizer.json.
        written: How each is written where it is looked for.

    Raises:
        ExportError: A token is matched in a way that has no twin here.
    """
    if not tokens:
        return elements
    _check(tokens, written)
    order = {text: number for number, text in enumerate(written)}  # the last of equal ones counts
    trie = Trie((0, tuple(map(ord, text)), number) for text, number in order.items())
    count = graph.size(elements.codes)
    here = graph.upto(count)
    room = piece_ends(graph, elements.pieces) - here
    letters = trie.letters(graph, elements.codes)
    lengths, numbers = trie.longest_at(graph, letters, graph.full(0, count), room)
    # A place that no possible match covers is certainly read; from there, match after match.
    free = ~_covered(graph, here + 1, here + lengths, count)
    marks = graph.join(graph.cast(free), [0])
    following = graph.join(here + graph.op("Max", lengths, 1), count)
    marks = reached(graph, marks, following)
    firsts = (graph.op("Slice", marks, [0], count, [0]) > 0) & (lengths > 0)
    found = graph.where(firsts, lengths, 0)
    gone = _covered(graph, here + 1, here + found, count)
    number = graph.op("Max", numbers, 0)
    takes = np.array([bool(token.get("lstrip")) for token in tokens], np.int64)
    if takes.any():
        matched = gone | firsts
        eager = firsts & (graph.take(takes, number) > 0)
        gone = gone | _before(graph, elements, matched, eager)
    ids = np.array([int(token["id"]) for token in tokens], np.int64)
    codes = graph.where(firsts, graph.take(ids, number) + TOKEN, elements.codes)
    changed = Elements(codes, elements.rows, elements.pieces).kept(graph, ~gone)
    return Elements(changed.codes, changed.rows, _pieces(graph, changed))


def _check(tokens: Sequence[Mapping[str, Any]], written: Sequence[str]) -> None:
    strips = any(token.get("lstrip") for token in tokens)
    for token, text in zip(tokens, written, strict=True):
        name = f"added token {token['content']!r}"
        for flag in ("single_word", "rstrip"):
            if token.get(flag):
                raise ExportError(
                    f"{name} is matched with {flag}, which has no exact twin in the graph: save "
                    "the tokenizer without the flag, or export with to_onnx"
                )
        if not text:
            raise ExportError(f"{name} is empty once normalised: remove it from the tokenizer")
        if strips and (text[0] in WHITE_SPACE or text[-1] in WHITE_SPACE):
            raise ExportError(
                f"{name} begins or ends with white space, which another token takes in (lstrip); "
                "this has no exact twin in the graph: save the tokenizer without the flag"
            )


def _covered(graph: Wires, firsts: Wire, ends: Wire, count: Wire) -> Wire:
    """[N] whether a place lies in one of the ranges, where they are not empty."""
    some = ends > firsts
    index = graph.join(graph.keep(firsts, some), graph.keep(ends, some))
    half = graph.total(graph.cast(some))
    steps = graph.join(graph.full(1, half), graph.full(-1, half))
    sums = graph.sums(graph.put(graph.full(0, count + 1), index, steps, "add"))
    return graph.op("Slice", sums, [0], count, [0]) > 0


def _before(graph: Wires, elements: Elements, matched: Wire, eager: Wire) -> Wire:
    """White space right before the places `eager`, none of it `matched` itself."""
    other = ~(look_up(graph, flags(WHITE_SPACE), elements.codes) > 0) | matched
    places = graph.join(graph.positions(other), graph.size(other))
    following = graph.take(places, graph.sums(graph.cast(other)))  # for white space: what ends it
    here = graph.take(graph.join(elements.pieces, [-1]), following).equals(elements.pieces)
    ends = graph.take(graph.join(eager, [False]), following)
    return ~other & here & ends


def piece_ends(graph: Wires, pieces: Wire) -> Wire:
    """[N] where each element's piece ends; `pieces` [N] are numbers that ascend."""
    last = ~graph.after(pieces, -1).equals(pieces)
    first = ~graph.before(pieces, -1).equals(pieces)
    return graph.take(graph.positions(last), graph.sums(graph.cast(first)) - 1) + 1


def reached(graph: Wires, marks: Wire, following: Wire) -> Wire:
    """Places reached from the marked ones, in any number of steps (0 included).

    Args:
        graph: Where to.
        marks: [N + 1] 1 for places to begin with.
        following: [N + 1] the step from each place, to a later one; the last leads to itself.
    """

    def body(g: Wires, turn: Wire, marks: Wire, following: Wire) -> tuple[Wire, list[Wire]]:
        to = g.keep(following, marks > 0)
        more = g.put(marks, to, g.full(1, g.op("Shape", to)))
        going = ~g.op("Squeeze", g.total(more).equals(g.total(marks)), [0])
        return going, [more, g.take(following, following)]

    return graph.loop([marks, following], body, [TensorProto.INT64] * 2)[0]


def _pieces(graph: Wires, elements: Elements) -> Wire:
    """Numbers of the parts between tokens; each token is a part."""
    token = elements.codes >= TOKEN
    old = ~graph.before(elements.pieces, -1).equals(elements.pieces)
    new = old | token | graph.before(token, False)
    return graph.sums(graph.cast(new)) - 1
