"""Texts inside a graph: flat arrays of code points, and tables over them."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf
from tokenizers import Regex, normalizers

from export.strings.errors import InexactError

CODES = 0x110000
"""How many code points there are; a code from here on stands for an added token, by its id."""
SURROGATES = slice(0xD800, 0xE000)
_PAGE = 256


_ALIKE = (range(0x40000, 0xE0000), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))
"""Planes that Unicode leaves empty, and those for private use: one character stands for each."""


@cache
def every_character() -> str:
    """All characters in order; of planes in which all are alike the first."""
    skipped = {code for alike in _ALIKE for code in alike[1:]}
    return "".join(
        chr(code) for code in range(CODES) if not 0xD800 <= code < 0xE000 and code not in skipped
    )


def spread_alike(values: np.ndarray) -> np.ndarray:
    """Gives the characters that `every_character` leaves out what the one that is there has."""
    for alike in _ALIKE:
        values[alike.start : alike.stop] = values[alike.start]
    return values


@cache
def character_set(pattern: str) -> np.ndarray:
    """Boolean [CODES]: which characters a regular expression of one character matches, as the
    library understands it.
    """
    left = normalizers.Replace(Regex(pattern), "").normalize_str(every_character())
    found = np.ones(CODES, bool)
    found[np.frombuffer(left.encode("utf-32-le"), "<u4")] = False
    found[SURROGATES] = False
    return spread_alike(found)


class PageTable:
    """A small whole number for each code point, kept as the distinct pages of 256.

    Args:
        values: [CODES].
        other: What codes beyond Unicode get.
    """

    def __init__(self, values: np.ndarray, other: int = 0) -> None:
        whole = np.concatenate([values, np.full(_PAGE, other, values.dtype)])
        numbers: dict[bytes, int] = {}
        index = [
            numbers.setdefault(page.tobytes(), len(numbers)) for page in whole.reshape(-1, _PAGE)
        ]
        self.pages = np.frombuffer(b"".join(numbers), values.dtype).astype("int32")
        self.index = np.array(index, "int32")

    def __call__(self, codes: tf.Tensor) -> tf.Tensor:
        """int32, as many as `codes`."""
        high = tf.minimum(tf.bitwise.right_shift(codes, 8), CODES // _PAGE)
        page = tf.gather(self.index, high) * _PAGE
        return tf.gather(self.pages, page + tf.bitwise.bitwise_and(codes, _PAGE - 1))


def flags(found: np.ndarray) -> Callable[[tf.Tensor], tf.Tensor]:
    """A set of characters as a function of codes; added tokens are never in it."""
    table = PageTable(found.astype("int32"))
    return lambda codes: table(codes) > 0


@dataclass(frozen=True)
class Text:
    """Texts of a batch, one behind the other, cut into words.

    Attributes:
        codes: int32 [N] code points, or added tokens.
        rows: int32 [N] which text of the batch each belongs to.
        words: int32 [N] number of the word, rising; a word never reaches into another row.
    """

    codes: tf.Tensor
    rows: tf.Tensor
    words: tf.Tensor

    @property
    def starts(self) -> tf.Tensor:
        """Boolean [N]: the first of its word."""
        return changes(self.words)

    @property
    def ends(self) -> tf.Tensor:
        """Boolean [N]: the last of its word."""
        return tf.concat(
            [self.words[1:] != self.words[:-1], tf.ones_like(self.words[:1], tf.bool)], 0
        )

    @property
    def added(self) -> tf.Tensor:
        """Boolean [N]: an added token."""
        return self.codes >= CODES

    def keep(self, kept: tf.Tensor) -> "Text":
        """Only the codes for which `kept` is true."""
        return Text(*(tf.boolean_mask(part, kept) for part in (self.codes, self.rows, self.words)))

    def split(self, starts: tf.Tensor) -> "Text":
        """Begins a word at `starts` too."""
        words = tf.cumsum(tf.cast(starts | self.starts, tf.int32))
        return Text(self.codes, self.rows, words)

    def with_codes(self, codes: tf.Tensor) -> "Text":
        """Other codes in the same places."""
        return Text(codes, self.rows, self.words)

    def spread(self, counts: tf.Tensor) -> tuple["Text", tf.Tensor]:
        """Each code `counts` times; also the number of each copy, from 0."""
        copies = [tf.repeat(part, counts) for part in (self.codes, self.rows, self.words)]
        first = tf.repeat(tf.cumsum(counts, exclusive=True), counts)
        return Text(*copies), tf.range(tf.shape(copies[0])[0]) - first

    def insert(
        self, before: tf.Tensor, content: list[int], behind: tf.Tensor | None = None
    ) -> "Text":
        """Puts `content` before the codes of `before`, and behind those of `behind`."""
        size = len(content)
        left = tf.cast(before, tf.int32) * size
        right = 0 if behind is None else tf.cast(behind, tf.int32) * size
        counts = left + 1 + right
        text, place = self.spread(counts)
        shift = tf.repeat(left, counts)
        inserted = tf.where(place < shift, place, place - shift - 1)
        new = tf.gather(tf.constant(content, tf.int32), tf.clip_by_value(inserted, 0, size - 1))
        return text.with_codes(tf.where(place == shift, text.codes, new))

    def strings(self) -> tf.Tensor:
        """The words as strings [number of words]; they must hold no added token."""
        return encode(self.codes, self.word_lengths())

    def word_lengths(self) -> tf.Tensor:
        """int32: how many codes each word has."""
        places = tf.cast(tf.where(self.starts)[:, 0], tf.int32)
        total = tf.shape(self.codes)[0]
        return tf.concat([places[1:], [total]], 0)[: tf.shape(places)[0]] - places


def changes(values: tf.Tensor) -> tf.Tensor:
    """Boolean [N]: where a value differs from the one before; true at the first."""
    return tf.concat([tf.ones_like(values[:1], tf.bool), values[1:] != values[:-1]], 0)


def encode(codes: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """Code points, cut by `lengths`, as UTF-8 strings [len(lengths)]."""
    return tf.strings.unicode_encode(by_length(codes, lengths), "UTF-8")


def by_owner(values: tf.Tensor, owners: tf.Tensor, count: tf.Tensor) -> tf.RaggedTensor:
    """Values [N] as `count` rows; `owners` says in which row each is, and rises."""
    owners, count = tf.cast(owners, tf.int64), tf.cast(count, tf.int64)
    return tf.RaggedTensor.from_value_rowids(values, owners, count, validate=False)


def by_length(values: tf.Tensor, lengths: tf.Tensor) -> tf.RaggedTensor:
    """Values [N] as rows of these lengths."""
    return tf.RaggedTensor.from_row_lengths(values, tf.cast(lengths, tf.int64), validate=False)


def decode(strings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """UTF-8 strings [M] as (code points [N], which string each is of [N])."""
    ragged = tf.strings.unicode_decode(strings, "UTF-8")
    return ragged.values, tf.cast(ragged.value_rowids(), tf.int32)


def pair_keys(first: tf.Tensor, second: tf.Tensor, bits: int) -> tf.Tensor:
    """int64: two whole numbers in one, of which the second has `bits` bits."""
    high = tf.bitwise.left_shift(tf.cast(first, tf.int64), tf.constant(bits, tf.int64))
    return tf.bitwise.bitwise_or(high, tf.cast(second, tf.int64))


made_tables: ContextVar[list[tf.lookup.StaticHashTable] | None] = ContextVar(
    "made_tables", default=None
)
"""Gathers the tables that are made, for who has to keep them with the functions that use them."""


def _made(initializer: Any, default: int) -> tf.lookup.StaticHashTable:
    table = tf.lookup.StaticHashTable(initializer, default)
    gathered = made_tables.get()
    if gathered is not None:
        gathered.append(table)
    return table


def table_of(keys: list[int], values: list[int], default: int) -> tf.lookup.StaticHashTable:
    """int64 keys, none below 0, to int32 values."""
    if not keys:  # TensorFlow takes no empty table
        keys, values = [-1], [default]
    initializer = tf.lookup.KeyValueTensorInitializer(
        np.array(keys, "int64"), np.array(values, "int32")
    )
    return _made(initializer, default)


def token_table(vocab: dict[str, int]) -> tf.lookup.StaticHashTable:
    """Tokens to ids, -1 for what is none."""
    initializer = tf.lookup.KeyValueTensorInitializer(
        [token.encode() for token in vocab], list(vocab.values()), tf.string, tf.int32
    )
    return _made(initializer, -1)


class Replacements:
    """A table that puts several characters, or none, in the place of one.

    Args:
        table: code point -> what replaces it; characters that stay are left out.
    """

    def __init__(self, table: dict[int, str]) -> None:
        contents = sorted(set(table.values()))
        number = {content: index + 1 for index, content in enumerate(contents)}
        values = np.zeros(CODES, "int32")
        for code, content in table.items():
            values[code] = number[content]
        self.empty = not table
        self.numbers = PageTable(values)
        self.sizes = np.array([1, *(len(content) for content in contents)], "int32")
        self.flat = np.array([ord(c) for content in contents for c in content] or [0], "int32")
        self.offsets = np.cumsum([0, 0, *self.sizes[1:-1]]).astype("int32")[: len(self.sizes)]

    def __call__(self, text: Text) -> Text:
        """The text with every character replaced."""
        if self.empty:
            return text
        numbers = self.numbers(text.codes)
        counts = tf.gather(self.sizes, numbers)
        spread, place = text.spread(counts)
        numbers = tf.repeat(numbers, counts)
        new = tf.gather(
            self.flat, tf.gather(self.offsets, numbers) + place * tf.cast(numbers > 0, tf.int32)
        )
        return spread.with_codes(tf.where(numbers > 0, new, spread.codes))


def replacements_of(normalize: Callable[[str], str]) -> dict[int, str]:
    """What a normaliser makes of each character alone, of those that it changes."""
    apart = "\ua000"  # a letter that no rule touches or makes
    characters = every_character().replace(apart, "")
    results = normalize(apart.join(characters)).split(apart)
    assert len(results) == len(characters), "a rule reaches across characters"
    table = {ord(c): new for c, new in zip(characters, results, strict=True) if c != new}
    if normalize(apart) != apart:
        table[ord(apart)] = normalize(apart)
    for alike in _ALIKE:
        if alike.start in table:
            table.update(dict.fromkeys(alike, table[alike.start]))
    return table


Spec = dict[str, Any]
"""A part of tokenizer.json."""
Step = Callable[[Text], Text]


def step_of(spec: Spec | None, builders: dict[str, Any], kind: str) -> Step:
    """The step that `spec` describes; without one, texts stay as they are.

    Raises:
        InexactError: It cannot be repeated exactly; `kind` says what it is.
    """
    if spec is None:
        return lambda text: text
    builder = builders.get(spec["type"])
    if builder is None:
        raise InexactError(f"the {kind} {spec['type']}")
    return builder(spec)


def chained(steps: list[Step]) -> Step:
    """One step after the other."""

    def call(text: Text) -> Text:
        for step in steps:
            text = step(text)
        return text

    return call
