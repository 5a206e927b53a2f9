"""Truncation, and the special tokens around a text or pair."""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from export.strings.codes import Spec, by_length
from export.strings.errors import InexactError


@dataclass(frozen=True)
class Part:
    """Special tokens, or (ids None) the first (0) or second (1) text; with a token type."""

    ids: tuple[int, ...] | None
    text: int
    kind: int


def _template(items: list[Spec], special: Spec) -> list[Part]:
    parts = []
    for item in items:
        [(kind, facts)] = item.items()
        if kind == "SpecialToken":
            parts.append(Part(tuple(special[facts["id"]]["ids"]), 0, facts["type_id"]))
        else:
            parts.append(Part(None, "AB".index(facts["id"]), facts["type_id"]))
    return parts


def templates_of(spec: Spec | None) -> tuple[list[Part], list[Part]]:
    """How one text and how a pair is put together.

    Raises:
        InexactError: The post-processor is not known.
    """
    plain = [Part(None, 0, 0)], [Part(None, 0, 0), Part(None, 1, 1)]
    if spec is None or spec["type"] == "ByteLevel":
        return plain
    if spec["type"] == "Sequence":
        found = [part for part in spec["processors"] if part["type"] != "ByteLevel"]
        if len(found) > 1:
            raise InexactError("several post-processors")
        return templates_of(found[0]) if found else plain
    if spec["type"] == "TemplateProcessing":
        single, pair = (_template(spec[key], spec["special_tokens"]) for key in ("single", "pair"))
        return single, pair
    if spec["type"] in ("BertProcessing", "RobertaProcessing"):
        cls, sep = Part((spec["cls"][1],), 0, 0), Part((spec["sep"][1],), 0, 0)
        first = [cls, Part(None, 0, 0), sep]
        if spec["type"] == "RobertaProcessing":
            return first, [*first, sep, Part(None, 1, 0), sep]
        return first, [*first, Part(None, 1, 1), Part(sep.ids, 0, 1)]
    raise InexactError(f"the post-processor {spec['type']}")


def special_count(parts: list[Part]) -> int:
    """How many special tokens a template adds."""
    return sum(len(part.ids) for part in parts if part.ids is not None)


def cut(texts: list[tf.RaggedTensor], room: int) -> list[tf.RaggedTensor]:
    """Cuts texts [B, T], the longest first, until they fit into `room` tokens together."""
    lengths = [tf.cast(text.row_lengths(), tf.int64) for text in texts]
    if len(texts) == 1:
        return [_head(texts[0], tf.minimum(lengths[0], room))]
    # As `tokenizers` does it: the shorter is cut only where both have more than half of the room.
    short, long = tf.minimum(*lengths), tf.maximum(*lengths)
    most = tf.where(short > room, short, tf.maximum(short, room - short))
    both = short + most > room
    less = tf.where(both, tf.constant(room // 2, tf.int64), short)
    more = tf.where(both, tf.constant(room // 2 + room % 2, tf.int64), most)
    fits = lengths[0] + lengths[1] <= room
    swapped = lengths[0] > lengths[1]
    first = tf.where(fits, lengths[0], tf.where(swapped, more, less))
    second = tf.where(fits, lengths[1], tf.where(swapped, less, more))
    del long
    sizes = [tf.minimum(size, kept) for size, kept in zip(lengths, (first, second), strict=True)]
    return [_head(text, size) for text, size in zip(texts, sizes, strict=True)]


def _head(text: tf.RaggedTensor, sizes: tf.Tensor) -> tf.RaggedTensor:
    """The first tokens of each row."""
    rows = text.value_rowids()
    place = tf.range(tf.shape(rows, tf.int64)[0]) - tf.gather(text.row_starts(), rows)
    kept = place < tf.gather(sizes, rows)
    return by_length(tf.boolean_mask(text.values, kept), sizes)


def assembled(parts: list[Part], texts: list[tf.RaggedTensor]) -> dict[str, tf.RaggedTensor]:
    """Ids and token types of rows put together by a template."""
    count = texts[0].nrows()
    ids, kinds = [], []
    for part in parts:
        row: Any = texts[part.text]
        if part.ids is not None:
            flat = tf.tile(tf.constant(part.ids, tf.int32), [tf.cast(count, tf.int32)])
            row = tf.RaggedTensor.from_uniform_row_length(flat, len(part.ids), nrows=count)
            row = tf.RaggedTensor.from_row_splits(row.values, row.row_splits, validate=False)
        ids.append(row)
        kinds.append(row.with_values(tf.fill(tf.shape(row.values), part.kind)))
    return {"input_ids": tf.concat(ids, 1), "token_type_ids": tf.concat(kinds, 1)}
