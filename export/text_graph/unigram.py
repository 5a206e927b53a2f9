"""Unigram vocabularies: the cut of a word whose pieces have the best sum of scores."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto

from export.errors import ExportError
from export.text_graph.added import piece_ends, reached
from export.text_graph.normalizers import ADVICE
from export.text_graph.spelling import spelt
from export.text_graph.tables import TOKEN, Trie
from export.text_graph.wires import Wire, Wires
from export.text_graph.words import Words

_UNKNOWN_PENALTY = 10.0  # of the library, below the worst score


def best_cut(graph: Wires, words: Words, facts: Mapping[str, Any]) -> tuple[Wire, Wire]:
    """Ids and rows [K] of the tokens; sums in float64 and in the library's order, so that equally
    good cuts are decided alike.
    """
    pieces = [(text, float(score)) for text, score in facts["vocab"]]
    unknown = facts["unk_id"]
    if unknown is None:
        raise ExportError(f"the vocabulary has no unknown piece. {ADVICE}")
    numbers = {text: number for number, (text, _) in enumerate(pieces)}
    if len(numbers) < len(pieces):
        raise ExportError(f"the vocabulary names a piece twice. {ADVICE}")
    trie = Trie((0, tuple(map(ord, text)), number) for text, number in numbers.items() if text)
    least = min(score for _, score in pieces)
    # Behind the pieces' scores: that of an unknown character, and of what cannot be.
    nothing, lone = len(pieces) + 1, len(pieces)
    scores = np.array([*(score for _, score in pieces), least - _UNKNOWN_PENALTY, -np.inf])
    elements = words.elements
    count = graph.size(elements.codes)
    here = graph.upto(count)
    first = ~graph.before(words.words, -1).equals(words.words)
    room = piece_ends(graph, words.words) - here
    found = trie.all_at(graph, trie.letters(graph, elements.codes), graph.full(0, count), room)
    found = graph.where(found < 0, nothing, found)
    single = graph.op("Slice", found, [0], [1], [0])
    single = graph.where(single.equals(nothing), lone, single)
    found = graph.join(single, graph.op("Slice", found, [1], [trie.longest], [0]))
    lengths = _best_lengths(graph, graph.take(scores, found), first, room, count)
    # Boundaries of the best cut, from the ends of words back to their beginnings.
    steps = graph.join([0], here + 1 - lengths)
    last = ~graph.after(words.words, -1).equals(words.words)
    marks = reached(graph, graph.join([0], graph.cast(last)), steps)
    ends = graph.op("Slice", marks, [1], count + 1, [0]) > 0
    starts = graph.keep(here + 1 - lengths, ends)
    index = (graph.keep(lengths, ends) - 1) * count + starts
    ids = graph.take(graph.op("Reshape", found, [-1]), index)
    codes = graph.take(elements.codes, starts)
    token = codes >= TOKEN
    ids = graph.where(token, codes - TOKEN, ids)
    strange = ids.equals(lone) | (ids.equals(unknown) & ~token)
    rows, belongs = (graph.take(x, starts) for x in (elements.rows, words.words))
    if not facts.get("byte_fallback"):
        again = strange & graph.before(strange, False) & graph.before(belongs, -1).equals(belongs)
        ids = graph.where(strange, unknown, ids)
        return graph.keep(ids, ~again), graph.keep(rows, ~again)
    bytes_ = [numbers.get(f"<0x{byte:02X}>") for byte in range(256)]
    missing = [byte for byte, number in enumerate(bytes_) if number is None]
    if missing:
        raise ExportError(
            f"byte_fallback is set and the vocabulary lacks {len(missing)} byte pieces, such as "
            f"<0x{missing[0]:02X}>. {ADVICE}"
        )
    # The unknown piece met in so many letters is itself, unless others unknown stand beside it.
    beside = [
        side(strange, False) & side(belongs, -1).equals(belongs)
        for side in (graph.before, graph.after)
    ]
    strange = strange & (ids.equals(lone) | beside[0] | beside[1])
    begin = graph.put(graph.full(0, count), starts, graph.full(1, graph.size(starts)))
    piece = graph.sums(begin) - 1
    odd = graph.take(strange, piece)
    letters = graph.where(odd, elements.codes, graph.take(ids, piece) + TOKEN)
    stays = odd | (begin > 0)
    values, source = spelt(graph, graph.keep(letters, stays))
    spelled = graph.take(np.array(bytes_, np.int64), graph.op("Min", values, 255))
    ids = graph.where(values >= TOKEN, values - TOKEN, spelled)
    return ids, graph.take(graph.keep(elements.rows, stays), source)


def _best_lengths(graph: Wires, scores: Wire, first: Wire, room: Wire, count: Wire) -> Wire:
    """[N] how many elements the last piece of the best cut up to each element has.

    Args:
        graph: Where to.
        scores: [K, N] of the piece with k + 1 elements that begins at each element; -inf for none.
        first: [N] where words begin.
        room: [N] elements from here to the word's end.
        count: N, [1].
    """
    flat = graph.op("Reshape", scores, [-1])
    begins = graph.positions(first)
    sizes = graph.take(room, begins)
    most = graph.op("Slice", graph.op("Shape", scores), [0], [1], [0])
    # Longest first: of equal sums the library keeps the one that begins first.
    backs = most - 1 - graph.upto(most)
    minus = np.array(-np.inf)
    so_far = graph.full(np.array([0.0]), count + 1)
    chosen = graph.full(1, count)

    def body(g: Wires, turn: Wire, so_far: Wire, chosen: Wire) -> tuple[Wire, list[Wire]]:
        ends = g.keep(g.wire(begins), g.wire(sizes) > turn) + turn
        column = g.op("Unsqueeze", ends, [1])
        starts = g.op("Max", column - backs, 0)
        possible = g.wire(backs) <= turn
        sums = g.take(so_far, starts) + g.take(flat, g.wire(backs) * count + starts)
        sums = g.where(possible, sums, minus)
        best = g.op("ArgMax", sums, axis=1, keepdims=0)
        top = g.op("ReduceMax", sums, [1], keepdims=0)
        chosen = g.put(chosen, ends, g.take(backs, best) + 1)
        # The last element's sum is not needed, and its place belongs to the next word.
        inside = g.take(room, ends) > 1
        so_far = g.put(so_far, g.where(inside, ends + 1, count), top)
        return g.op("ReduceMax", g.cast(g.join(inside, [False])), keepdims=0) > 0, [so_far, chosen]

    kinds = [TensorProto.DOUBLE, TensorProto.INT64]
    return graph.loop([so_far, chosen], body, kinds)[1]
