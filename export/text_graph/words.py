"""How a text is cut into words before the vocabulary is asked."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from tokenizers import Regex, pre_tokenizers

from export.errors import ExportError
from export.text_graph.characters import Elements
from export.text_graph.normalizers import ADVICE
from export.text_graph.tables import TOKEN, by_character, codes, look_up
from export.text_graph.wires import Wire, Wires


@dataclass(frozen=True)
class Words:
    """Elements with the word that each belongs to.

    Attributes:
        elements: Characters, and tokens found as such.
        words: [N] numbers that ascend by one from 0.
        spelt: The vocabulary spells words in bytes rather than characters.
    """

    elements: Elements
    words: Wire
    spelt: bool = False


def cut(graph: Wires, elements: Elements, facts: Mapping[str, Any] | None) -> Words:
    """Cuts texts as a pre-tokeniser of tokenizer.json does.

    Raises:
        ExportError: It has no exact twin.
    """
    if facts is None:
        return _whole(graph, elements)
    kind = facts["type"]
    if kind in ("BertPreTokenizer", "WhitespaceSplit"):
        return _by_class(graph, elements, kind)
    if kind == "ByteLevel":
        if facts["add_prefix_space"]:
            elements = _spaced(graph, elements)
        found = _gpt2(graph, elements) if facts["use_regex"] else _whole(graph, elements)
        return replace(found, spelt=True)
    steps = facts["pretokenizers"] if kind == "Sequence" else [facts]
    starts = graph.op("Less", elements.codes, 0)
    for step in steps:
        if step["type"] == "Metaspace" and step["prepend_scheme"] == "never":
            mark = ord(step["replacement"])
            codes_ = graph.where(elements.codes.equals(ord(" ")), mark, elements.codes)
            elements = replace(elements, codes=codes_)
            starts = starts | elements.codes.equals(mark) if step["split"] else starts
        elif pattern := _isolated(step):
            starts = starts | _SPLITS[pattern](graph, elements)
        else:
            raise ExportError(
                f"the tokenizer cuts words by {step}, which has no exact twin in the graph. "
                f"{ADVICE}"
            )
    return numbered(graph, elements, starts)


def _isolated(step: Mapping[str, Any]) -> str | None:
    """The regular expression of a step that has a twin."""
    if step["type"] != "Split" or step["behavior"] != "Isolated" or step["invert"]:
        return None
    pattern = step["pattern"].get("Regex")
    return pattern if pattern in _SPLITS else None


def members(*patterns: str) -> np.ndarray:
    """For each character the number of the pattern that matches it, from 1, as the library's
    regular expressions see it; 0 for none.
    """
    text = "".join(chr(code) for code, _ in codes())
    answers = np.zeros(len(text), np.int64)
    for number, pattern in enumerate(patterns, 1):
        matched = np.ones(len(text), bool)
        others = pre_tokenizers.Split(Regex(pattern), "removed").pre_tokenize_str(text)
        for _, (start, end) in others:
            matched[start:end] = False
        answers[matched] = number
    return by_character(answers)


@cache
def _runs() -> np.ndarray:
    """Punctuation 1, numbers 2, others 0."""
    return members(r"\p{P}", r"\p{N}")


def _punctuation_runs(graph: Wires, elements: Elements) -> Wire:
    found = look_up(graph, _runs(), elements.codes, -1)
    return ~graph.before(found, -1).equals(found)


def _marked_words(graph: Wires, elements: Elements) -> Wire:
    """Words with the marks before them."""
    mark = elements.codes.equals(ord(MARK))
    return mark & ~graph.before(mark, False)


def _every(graph: Wires, elements: Elements) -> Wire:
    return elements.codes >= 0


MARK = "\u2581"
_SPLITS = {
    r"[\s\S]": _every,
    r"\p{P}+|\p{N}+": _punctuation_runs,
    f"{MARK}*[^{MARK}]+|{MARK}+": _marked_words,
}


def numbered(graph: Wires, elements: Elements, starts: Wire) -> Words:
    """Words that begin at `starts`, and wherever a piece does."""
    token = elements.codes >= TOKEN
    piece = ~graph.before(elements.pieces, -1).equals(elements.pieces)
    new = starts | piece | token | graph.before(token, False)
    return Words(elements, graph.sums(graph.cast(new)) - 1)


def _whole(graph: Wires, elements: Elements) -> Words:
    never = graph.op("Less", elements.codes, 0)
    return numbered(graph, elements, never)


def _spaced(graph: Wires, elements: Elements) -> Elements:
    """A space before each piece that does not begin with one."""
    first = ~graph.before(elements.pieces, -1).equals(elements.pieces)
    lacks = first & (elements.codes < TOKEN) & ~elements.codes.equals(ord(" "))
    return elements.prefixed(graph, " ", lacks)


INSIDE, ALONE, DROPPED = 0, 1, 2


@cache
def _cutting(kind: str) -> np.ndarray:
    """What the library does at each character, between two letters."""
    text = "a".join(["", *(chr(code) for code, _ in codes()), ""])
    answers = np.full(len(text), DROPPED, np.int64)
    for _, (start, end) in getattr(pre_tokenizers, kind)().pre_tokenize_str(text):
        answers[start:end] = INSIDE
        if end == start + 1 and start % 2:  # a letter between two of these is a word, too
            answers[start] = ALONE
    return by_character(answers[1::2])


def _by_class(graph: Wires, elements: Elements, kind: str) -> Words:
    """Characters of three classes: of a word, a word alone, between words."""
    found = look_up(graph, _cutting(kind), elements.codes, ALONE)
    alone = found.equals(ALONE)
    outside = graph.before(found, ALONE) > INSIDE
    starts = alone | outside
    stays = found < DROPPED
    return numbered(graph, elements.kept(graph, stays), graph.keep(starts, stays))


OTHER, LETTER, NUMBER, SPACE, FOUND = range(5)


@cache
def _gpt2_classes() -> np.ndarray:
    """The classes that GPT-2's expression tells apart."""
    return members(r"\p{L}", r"\p{N}", r"\s")


def _gpt2(graph: Wires, elements: Elements) -> Words:
    r"""Words by GPT-2's regular expression, read from the left:

    `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
    """
    found = look_up(graph, _gpt2_classes(), elements.codes, FOUND)
    first = ~graph.before(elements.pieces, -1).equals(elements.pieces)
    last = ~graph.after(elements.pieces, -1).equals(elements.pieces)
    blank = elements.codes.equals(ord(" "))
    space = found.equals(SPACE)
    previous_space = graph.before(space, False) & ~first
    previous_blank = graph.before(blank, False) & ~first
    # What follows white space begins with its last blank; other white space there stands alone.
    starts = first | (~space & ~graph.before(found, FOUND).equals(found) & ~previous_space)
    starts = starts | (~space & previous_space & ~previous_blank)
    starts = starts | (space & ~previous_space)
    ends_run = space & ~last & ~graph.after(space, False)
    starts = starts | ends_run
    # An apostrophe begins a word of its own unless others of its kind or a blank come before it.
    after_other = graph.before(found, FOUND).equals(OTHER) & ~first
    may = elements.codes.equals(ord("'")) & ~after_other & ~previous_blank
    next_, third = (graph.after(elements.codes, -1, by) for by in (1, 2))
    second_inside = graph.after(~first, False)
    third_inside = graph.after(~first, False, 2) & second_inside

    def one_of(x: Wire, letters: str) -> Wire:
        hit = x.equals(ord(letters[0]))
        for letter in letters[1:]:
            hit = hit | x.equals(ord(letter))
        return hit

    short = may & second_inside & one_of(next_, "stmd")
    pairs = [("r", "e"), ("v", "e"), ("l", "l")]
    long = next_.equals(-2)
    for one, two in pairs:
        long = long | (next_.equals(ord(one)) & third.equals(ord(two)))
    long = may & third_inside & long
    inside = graph.before(short | long, False) | graph.before(long, False, 2)
    behind = graph.before(short, False, 2) | graph.before(long, False, 3)
    starts = ((starts | short | long) & ~inside) | behind
    return numbered(graph, elements, starts)
