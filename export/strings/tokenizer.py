"""A whole tokenizer in the graph."""

import json
from typing import Any

import tensorflow as tf

from export.strings.added import AddedTokens
from export.strings.codes import CODES, Text, by_length, decode
from export.strings.models import model_of
from export.strings.normalizer import normalizer_step
from export.strings.pre_tokenizer import pre_tokenizer_step
from export.strings.template import assembled, cut, special_count, templates_of


class TensorTokenizer(tf.Module):
    """Strings to ids, as the `tokenizers` library makes them of the same tokenizer.json.

    Args:
        tokenizer: A `zoo.text.Tokenizer`.

    Raises:
        InexactError: A part of it cannot be repeated exactly.
    """

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(name="tokenizer")
        backend = tokenizer.backend
        spec = json.loads(backend.to_str())
        self.pad: int = tokenizer.pad_token_id or 0
        self.names = [backend.id_to_token(number) or "" for number in range(tokenizer.vocab_size)]
        added = spec["added_tokens"]
        normalizer = backend.normalizer
        self.raw = AddedTokens([token for token in added if not token["normalized"]])
        self.normal = AddedTokens(
            [token for token in added if token["normalized"]],
            None if normalizer is None else normalizer.normalize_str,
        )
        self.normalize = normalizer_step(spec["normalizer"])
        self.pre_tokenize = pre_tokenizer_step(spec["pre_tokenizer"])
        self.model = model_of(spec["model"])
        self.single, self.pair = templates_of(spec["post_processor"])

    def ids(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """int32 [B, (T)] ids of strings [B], no special tokens around them."""
        count = tf.shape(texts, tf.int64)[0]
        clean = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
        text = self.normal.within(self.normalize(self.raw(clean)))
        text = self.pre_tokenize(text)
        words = self._words(text)
        first = tf.where(text.starts)[:, 0]
        rows = tf.gather(text.rows, first)
        sizes = tf.math.unsorted_segment_sum(words.row_lengths(), rows, count)
        return by_length(words.values, sizes)

    def _words(self, text: Text) -> tf.RaggedTensor:
        """Ids of every word; each different word is looked at once."""
        first = tf.where(text.starts)[:, 0]
        added = tf.gather(text.added, first)
        plain = text.keep(~text.added)
        different, number = tf.unique(plain.strings())
        codes, owners = decode(different)
        ids = self.model(Text(codes, owners, owners))
        tokens = tf.boolean_mask(tf.gather(text.codes, first), added) - CODES
        alone = by_length(tokens, tf.ones_like(tokens, tf.int64))
        order = tf.cumsum(tf.cast(added, tf.int32), exclusive=True) + tf.shape(different)[0]
        plain_order = tf.cumsum(tf.cast(~added, tf.int32), exclusive=True)
        number = tf.concat([number, [0]], 0)
        at = tf.where(added, order, tf.gather(number, tf.where(added, 0, plain_order)))
        return tf.gather(tf.concat([ids, alone], 0), at)

    def tokens(self, ids: tf.Tensor) -> tf.Tensor:
        """The tokens of ids, as the vocabulary writes them."""
        return tf.gather(tf.constant(self.names), ids)

    def encode(
        self, texts: tf.Tensor, pairs: tf.Tensor | None = None, max_length: int | None = None
    ) -> dict[str, tf.Tensor]:
        """Ids for a model.

        Args:
            texts: Strings [B].
            pairs: The second texts, as many.
            max_length: Most tokens of a row, special ones included; None does not cut.

        Returns:
            int64 `input_ids`, `attention_mask`, `token_type_ids` [B, T], padded on the right.
        """
        template = self.single if pairs is None else self.pair
        rows = [self.ids(text) for text in (texts, pairs) if text is not None]
        if max_length is not None:
            rows = cut(rows, max_length - special_count(template))
        parts = assembled(template, rows)
        ids = parts["input_ids"]
        mask = tf.ones_like(ids)
        return {
            "input_ids": tf.cast(ids.to_tensor(self.pad), tf.int64),
            "attention_mask": tf.cast(mask.to_tensor(0), tf.int64),
            "token_type_ids": tf.cast(parts["token_type_ids"].to_tensor(0), tf.int64),
        }
