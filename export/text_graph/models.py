"""Ids of words: the vocabularies' algorithms."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto

from export.errors import ExportError
from export.text_graph.added import piece_ends, reached
from export.text_graph.normalizers import ADVICE
from export.text_graph.spelling import spelt
from export.text_graph.tables import CHARACTERS, TOKEN, KeyTable, Trie, look_up
from export.text_graph.unigram import best_cut
from export.text_graph.wires import Wire, Wires
from export.text_graph.words import Words
from zoo.text.training import byte_characters


def tokens(graph: Wires, words: Words, facts: Mapping[str, Any]) -> tuple[Wire, Wire]:
    """Ids and rows [K] of the tokens of all texts.

    Raises:
        ExportError: The model of tokenizer.json has no exact twin.
    """
    kind = facts["type"]
    if kind not in MODELS:
        raise ExportError(
            f"a tokenizer of the kind {kind} has no exact twin in the graph; there are those of "
            f"{sorted(MODELS)}. {ADVICE}"
        )
    if words.spelt != (kind == "BPE"):
        raise ExportError(
            f"a {kind} vocabulary {'spelt in bytes' if words.spelt else 'of characters'} has no "
            f"exact twin in the graph. {ADVICE}"
        )
    return MODELS[kind](graph, words, facts)


def expect(facts: Mapping[str, Any], **values: Any) -> None:
    """Raises ExportError where a fact is another than the twin can follow."""
    for name, value in values.items():
        if (facts.get(name) or None) != (value or None):
            raise ExportError(
                f"the tokenizer's {facts['type']} model has {name} = {facts.get(name)!r}, which "
                f"has no exact twin in the graph. {ADVICE}"
            )


def word_piece(graph: Wires, words: Words, facts: Mapping[str, Any]) -> tuple[Wire, Wire]:
    """The longest piece first, from the left; a word that cannot be cut so is unknown."""
    vocab: dict[str, int] = facts["vocab"]
    unknown = vocab.get(facts["unk_token"])
    if unknown is None:
        raise ExportError(f"the unknown token {facts['unk_token']!r} is not in the vocabulary")
    prefix = facts["continuing_subword_prefix"]
    entries = [(0, tuple(map(ord, text)), number) for text, number in vocab.items() if text]
    entries += [
        (1, tuple(map(ord, text[len(prefix) :])), number)
        for text, number in vocab.items()
        if text.startswith(prefix) and len(text) > len(prefix)
    ]
    trie = Trie(entries, roots=2)
    elements = words.elements
    count = graph.size(elements.codes)
    here = graph.upto(count)
    first = ~graph.before(words.words, -1).equals(words.words)
    ends = piece_ends(graph, words.words)
    letters = trie.letters(graph, elements.codes)
    roots = graph.where(first, 0, 1)
    lengths, numbers = trie.longest_at(graph, letters, roots, ends - here)
    token = elements.codes >= TOKEN
    lengths = graph.where(token, 1, lengths)
    numbers = graph.where(token, elements.codes - TOKEN, numbers)
    stuck = lengths.equals(0)
    following = graph.join(graph.where(stuck, ends, here + lengths), count)
    marks = reached(graph, graph.join(graph.cast(first), [0]), following)
    taken = graph.op("Slice", marks, [0], count, [0]) > 0
    long = first & (ends - here > facts["max_input_chars_per_word"])
    wrong = (taken & stuck) | long
    amount = graph.total(graph.cast(first))
    bad = graph.put(graph.full(0, amount), graph.keep(words.words, wrong),
                    graph.full(1, graph.total(graph.cast(wrong))))  # fmt: skip
    bad_word = graph.take(bad, words.words) > 0
    ids = graph.where(bad_word, unknown, numbers)
    stays = (taken & ~bad_word) | (first & bad_word)
    return graph.keep(ids, stays), graph.keep(elements.rows, stays)


def byte_pairs(graph: Wires, words: Words, facts: Mapping[str, Any]) -> tuple[Wire, Wire]:
    """Bytes merged pair by pair: in each word the pair of the lowest rank first, the leftmost one
    of equals.
    """
    plain = {"dropout": None, "byte_fallback": False, "ignore_merges": False}
    expect(facts, continuing_subword_prefix=None, end_of_word_suffix=None, **plain)
    vocab: dict[str, int] = facts["vocab"]
    missing = [byte for byte, text in enumerate(byte_characters()) if text not in vocab]
    if missing:
        raise ExportError(
            f"the vocabulary lacks {len(missing)} bytes, such as {missing[0]:#04x}: texts with "
            f"them have no exact twin in the graph. {ADVICE}"
        )
    wide = max(vocab.values()) + 1
    merges = [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in facts["merges"]]
    ranks = {vocab[a] * wide + vocab[b]: rank for rank, (a, b) in enumerate(merges)}
    results = np.array([vocab[a + b] for a, b in merges] + [0], np.int64)
    values, elements = spelt(graph, words.elements.codes)
    singles = np.array([vocab[text] for text in byte_characters()], np.int64)
    token = values >= TOKEN
    single = graph.take(singles, graph.op("Min", values, 255))
    ids = graph.where(token, values - TOKEN, single)
    numbers = graph.take(words.words, elements)
    texts = graph.take(words.elements.rows, elements)
    if merges:
        table = KeyTable(ranks, len(merges))
        amount = graph.total(graph.cast(~graph.before(words.words, -1).equals(words.words)))
        ids, texts = _merged(graph, (ids, numbers, texts), table, results, wide, amount)
    return ids, texts


def _merged(
    graph: Wires,
    state: tuple[Wire, Wire, Wire],
    table: KeyTable,
    results: np.ndarray,
    wide: int,
    amount: Wire,
) -> tuple[Wire, Wire]:
    """One merge in every word and round, until there is none."""
    none = np.iinfo(np.int64).max

    def body(g: Wires, turn: Wire, ids: Wire, words: Wire, rows: Wire) -> tuple[Wire, list[Wire]]:
        together = g.after(words, -1).equals(words)
        keys = g.where(together, ids * wide + g.after(ids, 0), wide * wide)
        rank = table.look_up(g, keys)
        count = g.size(ids)
        order = g.where(rank < table.missing, rank * count + g.upto(count), none)
        best = g.put(g.full(none, amount), words, order, "min")
        here = (order < none) & order.equals(g.take(best, words))
        ids = g.where(here, g.take(results, rank), ids)
        stays = ~g.before(here, False)
        kept = [g.keep(x, stays) for x in (ids, words, rows)]
        return g.op("ReduceMax", g.cast(g.join(here, [False])), keepdims=0) > 0, kept

    ids, _, rows = graph.loop(state, body, [TensorProto.INT64] * 3)
    return ids, rows


def word_level(graph: Wires, words: Words, facts: Mapping[str, Any]) -> tuple[Wire, Wire]:
    """Whole words; here only those of one character."""
    vocab: dict[str, int] = facts["vocab"]
    unknown = vocab.get(facts["unk_token"])
    if unknown is None:
        raise ExportError(f"the unknown token {facts['unk_token']!r} is not in the vocabulary")
    numbers = np.full(CHARACTERS, unknown, np.int64)
    for text, number in vocab.items():
        if len(text) == 1:
            numbers[ord(text)] = number
    elements = words.elements
    ids = look_up(graph, numbers, elements.codes)
    token = elements.codes >= TOKEN
    return graph.where(token, elements.codes - TOKEN, ids), elements.rows


MODELS = {
    "BPE": byte_pairs,
    "Unigram": best_cut,
    "WordLevel": word_level,
    "WordPiece": word_piece,
}
