"""The normaliser of a tokenizer, in the graph."""

from typing import Any

import numpy as np
import tensorflow as tf
from tokenizers import normalizers

from export.strings import pattern as patterns
from export.strings.charsmap import Charsmap
from export.strings.codes import (
    CODES,
    Replacements,
    Spec,
    Step,
    Text,
    chained,
    character_set,
    flags,
    replacements_of,
    step_of,
)
from export.strings.composition import Composition, Decomposition
from export.strings.matcher import Boundaries, Matcher

WHITE_SPACE = (
    r"[\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"
)
"""What Rust calls white space."""


def normalizer_step(spec: Spec | None) -> Step:
    """A normaliser as a function of texts whose words are the parts between added tokens.

    Raises:
        InexactError: It cannot be repeated exactly.
    """
    return step_of(spec, _BUILDERS, "normaliser")


def _sequence(spec: Spec) -> Step:
    return chained([normalizer_step(part) for part in spec["normalizers"]])


def _bert(spec: Spec) -> Step:
    lowercase = spec["lowercase"]
    strip = spec["strip_accents"]
    strip = lowercase if strip is None else strip

    def alone(**facts: bool) -> Any:
        every = {"clean_text", "handle_chinese_chars", "strip_accents", "lowercase"}
        return normalizers.BertNormalizer(**{**dict.fromkeys(every, False), **facts}).normalize_str

    facts = {key: spec[key] for key in ("clean_text", "handle_chinese_chars")}
    steps: list[Step] = [Replacements(replacements_of(alone(**facts)))]
    if strip:
        stripped = replacements_of(alone(strip_accents=True))
        marks = np.zeros(CODES, bool)
        marks[[code for code, new in stripped.items() if not new]] = True
        is_mark = flags(marks)
        steps += [Decomposition("NFD"), lambda text: text.keep(~is_mark(text.codes))]
    if lowercase:
        steps.append(Replacements(replacements_of(alone(lowercase=True))))
    return chained(steps)


def _by_character(normalizer: Any) -> Step:
    return Replacements(replacements_of(normalizer.normalize_str))


def _replace(spec: Spec) -> Step:
    kind, text = next(iter(spec["pattern"].items()))
    node = patterns.literal(text) if kind == "String" else patterns.parse(text)
    return replaced(node, spec["content"])


def replaced(node: patterns.Node, content: str) -> Step:
    """Puts `content` in the place of each match."""
    codes = [ord(c) for c in content]
    places = Boundaries.of(node)
    if places is not None:

        def insert(text: Text) -> Text:
            before, behind = places(text)
            return text.insert(before, codes, behind)

        return insert
    matcher = Matcher(node)

    def replace(text: Text) -> Text:
        starts, inside = matcher(text)
        if not codes:
            return text.keep(~inside)
        first = starts & inside
        text = text.with_codes(tf.where(first, codes[0], text.codes))
        counts = tf.where(first, len(codes), tf.cast(~inside, tf.int32))
        spread, place = text.spread(counts)
        first = tf.repeat(first, counts)
        new = tf.gather(tf.constant(codes, tf.int32), tf.where(first, place, 0))
        return spread.with_codes(tf.where(first, new, spread.codes))

    return replace


def _prepend(spec: Spec) -> Step:
    codes = [ord(c) for c in spec["prepend"]]
    return lambda text: text.insert(text.starts & ~text.added, codes) if codes else text


def _strip(spec: Spec) -> Step:
    white = flags(character_set(WHITE_SPACE))

    def strip(text: Text) -> Text:
        solid = tf.cast(~white(text.codes), tf.int32)
        number = tf.cumsum(tf.cast(text.starts, tf.int32)) - 1
        total = tf.math.segment_sum(solid, number)
        # How many solid characters of the word lie up to a place, itself included.
        running = tf.cumsum(solid)
        before = tf.gather(tf.cumsum(total, exclusive=True), number)
        running = running - before
        left = (running > 0) if spec["strip_left"] else tf.ones_like(text.starts)
        rest = tf.gather(total, number) - running + solid
        right = (rest > 0) if spec["strip_right"] else tf.ones_like(text.starts)
        return text.keep((left & right) | text.added)

    return strip


def _form(form: str) -> Any:
    def build(spec: Spec) -> Step:
        steps: list[Step] = [Decomposition(form.removesuffix("C").removesuffix("D") + "D")]
        return chained([*steps, Composition()] if form.endswith("C") else steps)

    return build


_BUILDERS: dict[str, Any] = {
    "Sequence": _sequence,
    "BertNormalizer": _bert,
    "Lowercase": lambda spec: _by_character(normalizers.Lowercase()),
    "StripAccents": lambda spec: _by_character(normalizers.StripAccents()),
    "Nmt": lambda spec: _by_character(normalizers.Nmt()),
    "Replace": _replace,
    "Prepend": _prepend,
    "Strip": _strip,
    "Precompiled": Charsmap,
    "NFC": _form("NFC"),
    "NFD": _form("NFD"),
    "NFKC": _form("NFKC"),
    "NFKD": _form("NFKD"),
}
