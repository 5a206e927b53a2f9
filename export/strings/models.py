"""The models of tokenizers in the graph: words to ids. Unigram and BPE have files of their own."""

from typing import Any

import tensorflow as tf

from export.strings.bpe import Bpe
from export.strings.codes import Spec, Text, by_length, by_owner, token_table
from export.strings.errors import InexactError
from export.strings.trie import Trie, on_path
from export.strings.unigram import Unigram


class WordPiece(tf.Module):
    """The longest piece first, again and again; a word with a place where none fits is unknown."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        vocab, prefix = spec["vocab"], spec["continuing_subword_prefix"]
        if not prefix:
            raise InexactError("WordPiece without a prefix of continuing pieces")
        self.unknown = vocab.get(spec["unk_token"])
        if self.unknown is None:
            raise InexactError("WordPiece without its unknown token")
        self.most = spec["max_input_chars_per_word"]
        words = [(0, token, number) for token, number in vocab.items() if token]
        words += [
            (1, token[len(prefix) :], number)
            for token, number in vocab.items()
            if token.startswith(prefix) and token != prefix
        ]
        self.trie = Trie(words, roots=2)

    def __call__(self, text: Text) -> tf.RaggedTensor:
        """Ids of each word of `text`."""
        size = tf.shape(text.codes)[0]
        lengths = text.word_lengths()
        ends = tf.repeat(tf.cumsum(lengths), lengths)
        places, sizes, numbers = self.trie.walk(text.codes, ends, tf.cast(~text.starts, tf.int32))
        # Matches come by rising length: the last written is the longest.
        longest = _last(size, places, sizes, 0)
        ids = _last(size, places, numbers, self.unknown)
        here = tf.range(size)
        after = here + longest
        met = on_path(tf.where(after < ends, after, here), text.starts)
        word = tf.cumsum(tf.cast(text.starts, tf.int32)) - 1
        count = tf.shape(lengths)[0]
        stuck = tf.math.unsorted_segment_max(tf.cast(met & (longest == 0), tf.int32), word, count)
        whole = (stuck > 0) | (lengths > self.most)
        unknown = tf.gather(whole, word)
        kept = tf.where(unknown, text.starts, met)
        ids = tf.boolean_mask(tf.where(unknown, self.unknown, ids), kept)
        return by_owner(ids, tf.boolean_mask(word, kept), count)


def _last(size: tf.Tensor, places: tf.Tensor, values: tf.Tensor, default: int) -> tf.Tensor:
    """int32 [size]: of the values for a place that which comes last."""
    order = tf.range(tf.shape(places)[0])
    latest = tf.math.unsorted_segment_max(order, places, size)
    there = latest >= 0
    padded = tf.concat([values, [default]], 0)
    return tf.gather(padded, tf.where(there, latest, tf.shape(values)[0]))


class WordLevel(tf.Module):
    """Whole words."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        vocab = spec["vocab"]
        self.table = token_table(vocab)
        self.unknown = vocab.get(spec["unk_token"])
        if self.unknown is None:
            raise InexactError("WordLevel without its unknown token")

    def __call__(self, text: Text) -> tf.RaggedTensor:
        """Ids of each word of `text`."""
        ids = self.table.lookup(text.strings())
        ids = tf.where(ids < 0, self.unknown, ids)
        return by_length(ids, tf.ones_like(ids))


MODELS: dict[str, Any] = {
    "WordPiece": WordPiece,
    "WordLevel": WordLevel,
    "BPE": Bpe,
    "Unigram": Unigram,
}


def model_of(spec: Spec) -> Any:
    """The model of a tokenizer.json.

    Raises:
        InexactError: It cannot be repeated exactly.
    """
    if spec["type"] not in MODELS:
        raise InexactError(f"the model {spec['type']}")
    return MODELS[spec["type"]](spec)
