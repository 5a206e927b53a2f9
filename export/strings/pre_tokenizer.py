"""The pre-tokenizer of a tokenizer, in the graph: where a text is cut into words."""

from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf
from tokenizers import pre_tokenizers

from export.strings import pattern as patterns
from export.strings.codes import (
    CODES,
    Replacements,
    Spec,
    Step,
    Text,
    chained,
    character_set,
    every_character,
    flags,
    spread_alike,
    step_of,
)
from export.strings.errors import InexactError
from export.strings.matcher import Matcher
from zoo.text.training import byte_characters

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""The words of GPT-2, which the library has built in."""


def pre_tokenizer_step(spec: Spec | None) -> Step:
    """A pre-tokenizer as a function of texts; what it removes is gone.

    Raises:
        InexactError: It cannot be repeated exactly.
    """
    return step_of(spec, _BUILDERS, "pre-tokenizer")


def _sequence(spec: Spec) -> Step:
    return chained([pre_tokenizer_step(part) for part in spec["pretokenizers"]])


@cache
def _cut_characters(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """(removed, alone): what a pre-tokenizer does with each character between two letters."""
    made = getattr(pre_tokenizers, kind)()
    characters = every_character()
    pieces = made.pre_tokenize_str("a" + "".join(f"{c}a" for c in characters))
    codes = np.frombuffer(characters.encode("utf-32-le"), "<u4")
    covered = np.zeros(2 * len(characters) + 1, bool)
    alone = np.zeros(CODES, bool)
    for _, (start, end) in pieces:
        covered[start:end] = True
        if end - start == 1 and start % 2:
            alone[codes[start // 2]] = True
    removed = np.zeros(CODES, bool)
    removed[codes[~covered[1::2]]] = True
    return spread_alike(removed), spread_alike(alone)


def _by_character(kind: str) -> Any:
    """A pre-tokenizer that removes some characters and sets others apart, whatever is around."""

    def build(spec: Spec) -> Step:
        if spec.get("behavior", "Isolated") != "Isolated":
            raise InexactError(f"{kind} with behavior {spec['behavior']}")
        removed, alone = (flags(part) for part in _cut_characters(kind))

        def cut(text: Text) -> Text:
            gone, apart = removed(text.codes), alone(text.codes)
            stops = gone | apart
            behind = tf.concat([stops[-1:], stops[:-1]], 0)
            return text.split(stops | behind).keep(~gone)

        return cut

    return build


def _split(spec: Spec) -> Step:
    kind, source = next(iter(spec["pattern"].items()))
    node = patterns.literal(source) if kind == "String" else patterns.parse(source)
    return cut_by(Matcher(node), spec["behavior"], bool(spec.get("invert")))


def cut_by(matcher: Any, behavior: str, invert: bool = False) -> Step:
    """Cuts at matches; `behavior` says what becomes of them, as in the library."""
    if behavior not in (
        "Isolated",
        "Removed",
        "MergedWithNext",
        "MergedWithPrevious",
        "Contiguous",
    ):
        raise InexactError(f"a split with behavior {behavior}")

    def cut(text: Text) -> Text:
        starts, inside = matcher(text)
        inside = ~inside if invert else inside
        inside &= ~text.added
        if behavior == "Removed":
            return text.split(starts).keep(~inside)
        if behavior in ("MergedWithPrevious", "MergedWithNext"):
            # The number of each piece, and whether the pieces beside it are matches.
            starts |= text.starts
            first = tf.cast(tf.where(starts)[:, 0], tf.int32)
            is_match = tf.gather(inside, first)
            opens = tf.gather(text.starts, first)
            no = tf.zeros_like(is_match[:1])
            previous = tf.concat([no, is_match[:-1]], 0)
            if behavior == "MergedWithPrevious":
                joined = is_match & ~previous & ~opens
            else:
                joined = previous & ~is_match & ~opens
            keeps = tf.boolean_mask(first, ~joined)
            starts = tf.tensor_scatter_nd_update(
                tf.zeros_like(starts), keeps[:, None], tf.ones_like(keeps, tf.bool)
            )
        if behavior == "Contiguous":
            starts = tf.concat([text.starts[:1], inside[1:] != inside[:-1]], 0)
        return text.split(starts)

    return cut


def _byte_level(spec: Spec) -> Step:
    steps: list[Step] = []
    if spec["add_prefix_space"]:
        steps.append(_prefixed(" "))
    if spec.get("use_regex", True):
        steps.append(cut_by(Matcher(patterns.parse(GPT2)), "Isolated"))
    return chained([*steps, to_bytes])


def to_bytes(text: Text) -> Text:
    """Each character as the bytes of its UTF-8, written as byte-level vocabularies write them."""
    codes = text.codes
    one = tf.constant(1, tf.int32)
    counts = one + tf.cast(codes >= 0x80, tf.int32) + tf.cast(codes >= 0x800, tf.int32)
    counts += tf.cast(codes >= 0x10000, tf.int32)
    counts = tf.where(text.added, 1, counts)
    spread, place = text.spread(counts)
    sizes = tf.repeat(counts, counts)
    shifted = tf.bitwise.right_shift(spread.codes, 6 * (sizes - 1 - place))
    following = tf.bitwise.bitwise_or(tf.bitwise.bitwise_and(shifted, 0x3F), 0x80)
    lead = tf.gather(tf.constant([0, 0, 0xC0, 0xE0, 0xF0]), sizes)
    values = tf.where(place == 0, tf.bitwise.bitwise_or(shifted, lead), following)
    names = tf.constant([ord(c) for c in byte_characters()], tf.int32)
    values = tf.gather(names, tf.bitwise.bitwise_and(values, 0xFF))
    return spread.with_codes(tf.where(spread.added, spread.codes, values))


def _prefixed(character: str, first_only: bool = False) -> Step:
    """Puts a character before words that do not begin with it; `first_only`: of a text's first."""

    def prefix(text: Text) -> Text:
        wanted = text.starts & ~text.added & (text.codes != ord(character))
        if first_only:
            row_starts = tf.concat(
                [tf.ones_like(text.starts[:1]), text.rows[1:] != text.rows[:-1]], 0
            )
            wanted &= row_starts
        return text.insert(wanted, [ord(character)])

    return prefix


def _metaspace(spec: Spec) -> Step:
    mark = spec["replacement"]
    scheme = spec.get("prepend_scheme", "always")
    steps: list[Step] = [Replacements({ord(" "): mark} if mark != " " else {})]
    if scheme != "never":
        steps.append(_prefixed(mark, scheme == "first"))
    if spec.get("split", True):
        steps.append(cut_by(Matcher(patterns.literal(mark)), "MergedWithNext"))
    return chained(steps)


def _whitespace(spec: Spec) -> Step:
    return cut_by(Matcher(patterns.parse(r"\w+|[^\w\s]+")), "Removed", invert=True)


def _whitespace_split(spec: Spec) -> Step:
    removed, _ = _cut_characters("WhitespaceSplit")
    gone = flags(removed)
    return lambda text: text.split(_after(gone(text.codes))).keep(~gone(text.codes))


def _after(stops: tf.Tensor) -> tf.Tensor:
    return tf.concat([stops[-1:], stops[:-1]], 0)


def _numbers(spec: Spec) -> Step:
    """Digits: numbers apart from the rest, each digit alone where asked."""
    whole = character_set(r"\p{N}")
    made = pre_tokenizers.Digits(individual_digits=True)
    known = np.zeros(CODES, bool)
    codes = np.flatnonzero(whole)
    text = "a" + "".join(f"{chr(code)}a" for code in codes)
    for _, (start, end) in made.pre_tokenize_str(text):
        if end - start == 1 and start % 2:
            known[codes[start // 2]] = True
    digit = flags(known)

    def cut(text: Text) -> Text:
        found = digit(text.codes)
        starts = found != _after(found)
        return text.split(starts | found if spec["individual_digits"] else starts)

    return cut


_BUILDERS: dict[str, Any] = {
    "Sequence": _sequence,
    "BertPreTokenizer": _by_character("BertPreTokenizer"),
    "Punctuation": _by_character("Punctuation"),
    "ByteLevel": _byte_level,
    "Split": _split,
    "Metaspace": _metaspace,
    "Whitespace": _whitespace,
    "WhitespaceSplit": _whitespace_split,
    "Digits": _numbers,
}
