"""Unicode's decompositions and compositions (UAX #15) over arrays of code points, by the tables of
the `tokenizers` library.
"""

import unicodedata
from functools import cache

import numpy as np
import tensorflow as tf
from tokenizers import normalizers

from export.strings.codes import (
    CODES,
    PageTable,
    Replacements,
    Text,
    pair_keys,
    replacements_of,
    table_of,
)

_HANGUL = range(0xAC00, 0xD7A4)


@cache
def combining_classes() -> np.ndarray:
    """[CODES] how characters are ordered behind the one they combine with; 0 for no mark.

    A class never changes once a character has one, so Python's are right wherever the library,
    whose Unicode may be older, knows the character.
    """
    values = np.zeros(CODES, "int32")
    order = normalizers.NFD().normalize_str
    last = "\u0345"  # of the highest class
    for code in range(CODES):
        kind = 0 if 0xD800 <= code < 0xE000 else unicodedata.combining(chr(code))
        if kind and (kind >= 240 or order(f"a{last}{chr(code)}")[-1:] == last):
            values[code] = kind
    return values


@cache
def _decompositions(form: str) -> dict[int, str]:
    return replacements_of(getattr(normalizers, form)().normalize_str)


@cache
def _compositions() -> dict[tuple[int, int], int]:
    """Pairs that become one character."""
    pairs = {}
    compose = normalizers.NFC().normalize_str
    for code, parts in _decompositions("NFD").items():
        if code in _HANGUL or len(parts) < 2:
            continue
        head = compose(parts[:-1])
        if len(head) == 1 and compose(head + parts[-1]) == chr(code):
            pairs[ord(head), ord(parts[-1])] = code
    return pairs


class Decomposition:
    """NFD or NFKD."""

    def __init__(self, form: str) -> None:
        self.table = Replacements(_decompositions(form))
        self.kinds = PageTable(combining_classes())

    def __call__(self, text: Text) -> Text:
        text = self.table(text)
        kinds = self.kinds(text.codes)
        both = (kinds[1:] > 0) & (kinds[:-1] > kinds[1:])
        codes = tf.cond(tf.reduce_any(both), lambda: self._ordered(text, kinds), lambda: text.codes)
        return text.with_codes(codes)

    @staticmethod
    def _ordered(text: Text, kinds: tf.Tensor) -> tf.Tensor:
        run = tf.cumsum(tf.cast((kinds == 0) | text.starts, tf.int32))
        keys = tf.cast(run, tf.int64) * 256 + tf.cast(kinds, tf.int64)
        return tf.gather(text.codes, tf.argsort(keys, stable=True))


class Composition(tf.Module):
    """What makes NFC of NFD: pairs of a character and a mark, or of Hangul letters, become one."""

    def __init__(self) -> None:
        super().__init__()
        pairs = _compositions()
        self.pairs = table_of([a << 21 | b for a, b in pairs], list(pairs.values()), -1)
        self.kinds = PageTable(combining_classes())

    def _joined(self, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        """The character that two make; -1 where they make none."""
        found = self.pairs.lookup(pair_keys(first, second, 21))
        left, vowel = first - 0x1100, second - 0x1161
        syllable = (left >= 0) & (left < 19) & (vowel >= 0) & (vowel < 21)
        found = tf.where(syllable, 0xAC00 + (left * 21 + vowel) * 28, found)
        open_, final = first - 0xAC00, second - 0x11A7
        closed = (open_ >= 0) & (open_ < 11172) & (open_ % 28 == 0) & (final > 0) & (final < 28)
        return tf.where(closed, first + final, found)

    def _round(self, text: Text) -> tuple[Text, tf.Tensor]:
        """One round: every character with the first mark behind it that it can take."""
        codes = text.codes
        kinds = self.kinds(codes)
        size = tf.shape(codes)[0]
        places = tf.range(size)
        heads = (kinds == 0) | text.starts
        # The last head before each place (itself not included).
        own = tf.where(heads, places, -1)
        latest = _latest(own)
        head = tf.concat([tf.fill(tf.minimum(size, 1)[None], -1), latest[:-1]], 0)
        safe = tf.maximum(head, 0)
        same = (
            (head >= 0)
            & (tf.gather(text.words, safe) == text.words)
            & (tf.gather(kinds, safe) == 0)
        )
        previous = tf.concat([kinds[-1:], kinds[:-1]], 0)
        free = (head == places - 1) | ((previous < kinds) & (previous > 0))
        made = tf.where(same & free & ~text.added, self._joined(tf.gather(codes, safe), codes), -1)
        taken = made >= 0
        taken &= ~tf.gather(taken, safe) | (head < 0)  # a head that is itself taken waits
        # Of several marks that one head could take the first.
        earlier = _latest(tf.where(taken, places, -1))
        before = tf.concat([tf.fill(tf.minimum(size, 1)[None], -1), earlier[:-1]], 0)
        taken &= ~((before > safe) & (head >= 0))
        at = tf.where(taken)
        codes = tf.tensor_scatter_nd_update(
            codes, tf.gather(safe, at[:, 0])[:, None], tf.gather(made, at[:, 0])
        )
        return text.with_codes(codes).keep(~taken), tf.reduce_any(taken)

    def __call__(self, text: Text) -> Text:
        def body(again: tf.Tensor, *parts: tf.Tensor) -> tuple[tf.Tensor, ...]:
            after, again = self._round(Text(*parts))
            return again, after.codes, after.rows, after.words

        any_ = tf.TensorShape([None])
        state = tf.while_loop(
            lambda again, *parts: again,
            body,
            (tf.size(text.codes) > 0, text.codes, text.rows, text.words),
            shape_invariants=(tf.TensorShape([]), any_, any_, any_),
        )
        return Text(*state[1:])


def _latest(values: tf.Tensor) -> tf.Tensor:
    """The last of the values up to each place that is not -1; -1 where there is none."""
    marks = tf.cast(values >= 0, tf.int32)
    kept = tf.boolean_mask(values, values >= 0)
    kept = tf.concat([tf.constant([-1], values.dtype), kept], 0)
    return tf.gather(kept, tf.cumsum(marks))
