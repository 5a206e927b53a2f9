"""From strings to flat arrays of code points."""

import json
from dataclasses import dataclass

from export.text_graph.wires import CONTRIB, MICROSOFT, ML, Wire, Wires
from zoo.text.training import byte_characters

_BYTES = json.dumps({character: byte for byte, character in enumerate(byte_characters())})


@dataclass(frozen=True)
class Elements:
    """Characters (and tokens found as such) of all texts, one after the other.

    Attributes:
        codes: [N] code points; `tables.TOKEN` + i for the token i.
        rows: [N] the text that each belongs to, ascending.
        pieces: [N] the part of a text between tokens found as such, ascending.
    """

    codes: Wire
    rows: Wire
    pieces: Wire

    def kept(self, graph: Wires, condition: Wire) -> "Elements":
        """Those for which `condition` holds."""
        parts = (self.codes, self.rows, self.pieces)
        return Elements(*[graph.keep(part, condition) for part in parts])

    def prefixed(self, graph: Wires, text: str, where: Wire) -> "Elements":
        """The same with `text` before the places `where` [N]."""
        source, nth = graph.repeats(graph.cast(where) * len(text) + 1)
        added = graph.take(where, source) & (nth < len(text))
        letters = graph.take([ord(letter) for letter in text], graph.op("Min", nth, len(text) - 1))
        codes, rows, pieces = (
            graph.take(part, source) for part in (self.codes, self.rows, self.pieces)
        )
        return Elements(graph.where(added, letters, codes), rows, pieces)


def read(graph: Wires, texts: Wire) -> Elements:
    """The characters of texts [B].

    A byte-level tokenizer that merges nothing gives the bytes; its SentencePiece would too, but
    cannot be loaded into a process that has loaded TensorFlow. Strings reach operators of
    onnxruntime-extensions only up to their first NUL character, and "<|endoftext|>" has a meaning
    for this one, so texts are cut at NUL and "<" by an operator of onnxruntime's own.
    """
    strings = graph.op(
        "Tokenizer", texts, domain=MICROSOFT,
        mark=0, pad_value="", mincharnum=1, tokenexp="[^\\x00<]+|<|\\x00",
    )  # fmt: skip
    parts = graph.op("Reshape", strings, [-1])
    nul = graph.op(
        "LabelEncoder", parts, domain=ML, keys_strings=["\0"], values_int64s=[1], default_int64=0
    )
    bytes_, mask = graph.ops(
        "GPT2Tokenizer", parts, outputs=2, domain=CONTRIB, vocab=_BYTES, merges="#version: 0.2\n"
    )
    nul = graph.op("Unsqueeze", nul, [1])
    every = graph.op("Concat", nul, mask, axis=1) > 0
    values = graph.op("Concat", graph.op("Sub", nul, nul), bytes_, axis=1)
    values = graph.keep(graph.op("Reshape", values, [-1]), graph.op("Reshape", every, [-1]))
    part = graph.op("Gather", graph.op("NonZero", every), 0, axis=0)
    width = graph.op("Max", graph.size(parts) // graph.op("Max", graph.size(texts), 1), 1)
    return _characters(graph, values, part // width)


def _characters(graph: Wires, values: Wire, rows: Wire) -> Elements:
    """UTF-8 read: bytes [M] to code points."""
    follows = (values // 64).equals(2)
    second, third, fourth = (graph.after(values, 0, by) - 0x80 for by in (1, 2, 3))
    two = (values - 0xC0) * 64 + second
    three = ((values - 0xE0) * 64 + second) * 64 + third
    four = (((values - 0xF0) * 64 + second) * 64 + third) * 64 + fourth
    wide = graph.where(values < 0xF0, three, four)
    codes = graph.where(values < 0x80, values, graph.where(values < 0xE0, two, wide))
    first = ~follows
    rows = graph.keep(rows, first)
    return Elements(graph.keep(codes, first), rows, rows)
