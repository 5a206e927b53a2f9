"""SentencePiece's table of replacements in the graph, as the `tokenizers` library applies it.

The library looks up whole grapheme clusters of up to five bytes, of which the shortest entry that
begins one replaces all of it; the characters of others it looks up one by one. Which characters
belong into one cluster is found out by asking the library.
"""

import base64
import unicodedata
from typing import Any

import numpy as np
import tensorflow as tf
from tokenizers import normalizers

from export.strings.codes import (
    CODES,
    Replacements,
    Spec,
    Text,
    every_character,
    flags,
    pair_keys,
    spread_alike,
    table_of,
)
from export.strings.errors import InexactError

_LONGEST = 5
"""Bytes of a cluster that is looked up as a whole."""
_SPARE = range(0xD800, 0xE000)
"""Codes that no text holds: what a pair becomes, for a moment."""


def entries(charsmap: bytes) -> dict[str, str]:
    """The entries of up to five bytes of a table, which is a darts-clone double array with the
    replacements behind it; the library never looks up a longer text.
    """
    size = int.from_bytes(charsmap[:4], "little")
    units = np.frombuffer(charsmap[4 : 4 + size], "<u4").astype("int64")
    contents = charsmap[4 + size :]

    def offsets(found: np.ndarray) -> np.ndarray:
        return (found >> 10) << ((found & (1 << 9)) >> 6)

    table: dict[str, str] = {}
    level = [(0 ^ int(offsets(units[:1])[0]), b"")]
    labels = np.arange(1, 256)
    while level:
        deeper = []
        for place, key in level:
            at = place ^ labels
            inside = at < len(units)
            labelled = np.zeros(len(labels), bool)
            labelled[inside] = (units[at[inside]] & ((1 << 31) | 0xFF)) == labels[inside]
            for label in labels[labelled]:
                unit = int(units[place ^ int(label)])
                next_place = (place ^ int(label)) ^ int(offsets(np.array([unit]))[0])
                longer = key + bytes([label])
                if unit >> 8 & 1:
                    start = int(units[next_place]) & 0x7FFFFFFF
                    table[longer.decode()] = contents[start : contents.index(b"\0", start)].decode()
                if len(longer) < _LONGEST:
                    deeper.append((next_place, longer))
        level = deeper
    return table


class Charsmap(tf.Module):
    """A `Precompiled` normaliser."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        raw = base64.b64decode(spec["precompiled_charsmap"])
        apply = normalizers.Precompiled(raw).normalize_str
        table = entries(raw)
        single = {ord(key): value for key, value in table.items() if len(key) == 1}
        unknown = {key: value for key, value in table.items() if ord(key[0]) not in single}
        pairs = {key: value for key, value in unknown.items() if len(key) == 2}
        # What a pair becomes is one character that stays; a few pairs need a code of their own.
        spare = sorted(k for k, new in pairs.items() if len(new) != 1 or ord(new) in single)
        numbers = {key: ord(new) for key, new in pairs.items() if key not in spare}
        numbers |= dict(zip(spare, _SPARE, strict=False))
        if len(numbers) < len(pairs) or any(len(k) > 2 and k[:2] not in pairs for k in unknown):
            raise InexactError("a table of SentencePiece with many entries of several characters")
        self.pairs = table_of(
            [ord(key[0]) << 21 | ord(key[1]) for key in numbers], list(numbers.values()), 0
        )
        self.replacements = Replacements(single | {numbers[key]: pairs[key] for key in spare})
        has_entry = np.zeros(CODES, bool)
        has_entry[list(single)] = True
        self.has_entry = flags(has_entry)
        extends, leads, breaks = _classes(apply, single)
        self.extends, self.leads, self.breaks = flags(extends), flags(leads), flags(breaks)
        # "\r\n" is one cluster by a rule of its own.

    def __call__(self, text: Text) -> Text:
        """The text with every cluster and character replaced."""
        codes = text.codes
        previous = tf.concat([codes[-1:], codes[:-1]], 0)
        joined = self.extends(codes) & ~self.breaks(previous)
        joined |= self.leads(previous) & ~self.breaks(codes)
        joined |= (previous == 0x0D) & (codes == 0x0A)
        starts = ~joined | text.starts
        cluster = tf.cumsum(tf.cast(starts, tf.int32)) - 1
        sizes = 1 + sum(tf.cast(codes >= bound, tf.int32) for bound in (0x80, 0x800, 0x10000))
        total = tf.gather(tf.math.segment_sum(sizes, cluster), cluster)
        small = (total <= _LONGEST) & ~text.added
        following = tf.concat([codes[1:], codes[:1]], 0)
        more = tf.concat([~starts[1:], tf.zeros_like(starts[:1])], 0)
        whole = starts & more & small
        known = whole & self.has_entry(codes)
        pair = tf.where(whole & ~known, self.pairs.lookup(pair_keys(codes, following, 21)), 0)
        replaced = tf.cast(known | (pair > 0), tf.int32)
        dropped = tf.gather(tf.math.segment_max(replaced, cluster), cluster) > 0
        kept = starts | ~dropped
        return self.replacements(text.with_codes(tf.where(pair > 0, pair, codes)).keep(kept))


def _classes(apply: Any, single: dict[int, str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which characters extend a cluster, which take the next one into theirs, and which break.

    A no-break space with an accent is a cluster of four bytes, of which the table's entry for the
    space drops the accent. With a further character in it, it is too long, and the accent stays.
    """
    space, accent, other = "\u00a0", "\u0301", "\u0340"
    base = single.get(ord(space))
    if base is None or apply(space + accent) != base or apply(accent) != accent:
        raise InexactError("a table of SentencePiece that does not replace the no-break space")
    if single.get(ord(other)) is None or apply("\n" + other + accent)[-1:] == accent:
        raise InexactError("a table of SentencePiece without Unicode's compositions")
    extends, leads, breaks = (np.zeros(CODES, bool) for _ in range(3))
    for character in every_character():
        code = ord(character)
        extends[code] = apply(space + accent + character).startswith(base + accent)
        leads[code] = code > 0x7F and apply(character + space + accent).endswith(base + accent)
        if code > 0x7F:
            breaks[code] = not apply(character + other + accent).endswith(accent)
        else:
            breaks[code] = unicodedata.category(character) == "Cc"
    extends, leads, breaks = (spread_alike(found) for found in (extends, leads, breaks))
    return extends, leads & ~breaks, breaks
