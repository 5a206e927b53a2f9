"""Are the ids of a graph those of the library? Asked before a graph takes strings."""

from typing import Any

import numpy as np
import tensorflow as tf

from export.strings.codes import by_length
from export.strings.decoder import TensorDecoder
from export.strings.errors import InexactError
from export.strings.template import special_count
from export.strings.tokenizer import TensorTokenizer
from export.text_graph.corpus import pairs, texts

_BATCH = 256


def compared(
    tokenizer: Any, encoder: TensorTokenizer, decoder: TensorDecoder | None, longest: int
) -> int:
    """Compares texts, pairs of texts that are cut, and rows of ids; returns how many texts.

    Raises:
        InexactError: Something is not as the library has it; says what.
    """
    lines = texts(tokenizer)
    spec = tf.TensorSpec([None], tf.string)
    single = tf.function(encoder.encode, input_signature=[spec], autograph=False)
    rows = tokenizer.encode_raw(lines)
    for begin in range(0, len(lines), _BATCH):
        part = slice(begin, begin + _BATCH)
        _compare(single(tf.constant(lines[part])), rows[part], lines[part])
    least = max(special_count(encoder.pair) + 1, min(longest, 9))
    both = tf.function(
        lambda text, pair: encoder.encode(text, pair, least),
        input_signature=[spec, spec],
        autograph=False,
    )
    few = lines[:_BATCH]
    others = pairs(few)
    expected = tokenizer.encode_raw(few, others, max_length=least)
    _compare(both(tf.constant(few), tf.constant(others)), expected, few)
    if decoder is not None:
        _compare_back(tokenizer, decoder, [row.ids for row in rows])
    return len(lines)


def _compare(found: dict[str, tf.Tensor], expected: list[Any], lines: list[str]) -> None:
    ids, kinds = found["input_ids"].numpy(), found["token_type_ids"].numpy()
    sizes = found["attention_mask"].numpy().sum(axis=1)
    for line, row, kind, size, encoding in zip(lines, ids, kinds, sizes, expected, strict=True):
        if row[:size].tolist() != encoding.ids or kind[:size].tolist() != encoding.type_ids:
            raise InexactError(f"the ids that a graph makes of {line[:60]!r} are not the library's")


def _compare_back(tokenizer: Any, decoder: TensorDecoder, rows: list[list[int]]) -> None:
    draw = np.random.default_rng(0)
    rows = rows + [
        draw.integers(0, tokenizer.vocab_size, size).tolist() for size in draw.integers(0, 40, 300)
    ]
    function = tf.function(
        lambda values, sizes: decoder(by_length(values, sizes)),
        input_signature=[tf.TensorSpec([None], tf.int32), tf.TensorSpec([None], tf.int64)],
        autograph=False,
    )
    flat = tf.constant([number for row in rows for number in row], tf.int32)
    found = function(flat, tf.constant([len(row) for row in rows], tf.int64)).numpy()
    for row, text, expected in zip(rows, found, tokenizer.decode_batch(rows), strict=True):
        if text.decode("utf-8", "replace") != expected:
            raise InexactError(
                f"the text that a graph makes of ids {row[:12]} is not the library's"
            )
