"""Unigram in the graph: the likeliest pieces of a word, by the sums that the library makes.

Scores are added in float64 from the word's beginning, and of equal sums the longer last piece
wins, as in the library: so that where pieces are as good as each other the choice is the same.
"""

import numpy as np
import tensorflow as tf

from export.strings.byte_pieces import byte_ids, bytes_of
from export.strings.codes import Spec, Text, by_owner, changes
from export.strings.errors import InexactError
from export.strings.trie import Trie, on_path

_UNKNOWN_PENALTY = 10.0


class Unigram(tf.Module):
    """Kudo (2018)'s model."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        rows = spec["vocab"]
        if spec["unk_id"] is None:
            raise InexactError("Unigram without an unknown token")
        self.unknown: int = spec["unk_id"]
        vocab = {token: number for number, (token, _) in enumerate(rows)}
        if len(vocab) < len(rows):
            raise InexactError("a Unigram vocabulary that holds a piece twice")
        scores = np.array([score for _, score in rows], "float64")
        self.scores = tf.Variable(scores, trainable=False, name="scores")
        self.unknown_score = float(scores.min()) - _UNKNOWN_PENALTY
        self.bytes = byte_ids(vocab, spec.get("byte_fallback", False))
        self.trie = Trie((0, token, number) for token, number in vocab.items() if token)

    def __call__(self, text: Text) -> tf.RaggedTensor:
        """Ids of each word of `text`."""
        size = tf.shape(text.codes)[0]
        width = self.trie.longest
        lengths = text.word_lengths()
        ends = tf.repeat(tf.cumsum(lengths), lengths)
        places, sizes, numbers = self.trie.walk(text.codes, ends, tf.zeros_like(text.codes))
        # By a piece's last place and its length, the longest first.
        at = ((places + sizes - 1) * width + width - sizes)[:, None]
        ids = tf.tensor_scatter_nd_update(tf.fill([size * width], -1), at, numbers)
        scores = tf.tensor_scatter_nd_update(
            tf.fill([size * width], tf.constant(-np.inf, tf.float64)),
            at,
            tf.gather(self.scores, numbers),
        )
        ids, scores = (tf.reshape(x, [size, width]) for x in (ids, scores))
        alone = tf.where(
            ids[:, -1:] < 0, tf.constant(self.unknown_score, tf.float64), scores[:, -1:]
        )
        scores = tf.concat([scores[:, :-1], alone], 1)

        length = self._best_lengths(scores, lengths)
        here = tf.range(size)
        before = here - length
        starts = tf.repeat(tf.cumsum(lengths, exclusive=True), lengths)
        last = on_path(tf.where(before >= starts, before, here), text.ends)
        piece_ids = tf.gather(ids, width - length, batch_dims=1)
        return self._emitted(text, last, length, piece_ids, ids)

    def _best_lengths(self, scores: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """int32 [N]: how long the last piece of the best way to each place is.

        Args:
            scores: float64 [N, L] by a piece's last place, the longest first.
            lengths: int32 [W] of the words.
        """
        width = self.trie.longest
        order = tf.argsort(lengths, direction="DESCENDING", stable=True)
        begins = tf.gather(tf.cumsum(lengths, exclusive=True), order)
        sizes = tf.gather(lengths, order)
        count = tf.shape(lengths)[0]
        infinite = tf.fill([count, width - 1], tf.constant(-np.inf, tf.float64))
        window = tf.concat([infinite, tf.zeros([count, 1], tf.float64)], 1)

        def body(
            place: tf.Tensor, window: tf.Tensor, at: tf.TensorArray, chosen: tf.TensorArray
        ) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray, tf.TensorArray]:
            active = tf.reduce_sum(tf.cast(sizes > place, tf.int32))
            rows = begins[:active] + place
            window = window[:active]
            sums = window + tf.gather(scores, rows)
            best = tf.reduce_max(sums, axis=1, keepdims=True)
            column = tf.argmax(sums, axis=1, output_type=tf.int32)
            at = at.write(place, rows)
            chosen = chosen.write(place, width - column)
            return place + 1, tf.concat([window[:, 1:], best], 1), at, chosen

        arrays = [
            tf.TensorArray(tf.int32, 0, dynamic_size=True, infer_shape=False, element_shape=[None])
            for _ in range(2)
        ]
        most = tf.reduce_max(tf.concat([lengths, [0]], 0))
        state = tf.while_loop(
            lambda place, *rest: place < most,
            body,
            (tf.constant(0), window, *arrays),
            shape_invariants=(
                tf.TensorShape([]),
                tf.TensorShape([None, width]),
                tf.TensorShape(None),
                tf.TensorShape(None),
            ),
            parallel_iterations=1,
        )
        at, chosen = state[2].concat(), state[3].concat()
        return tf.tensor_scatter_nd_update(
            tf.zeros(tf.shape(scores)[:1], tf.int32), at[:, None], chosen
        )

    def _emitted(
        self, text: Text, last: tf.Tensor, length: tf.Tensor, piece_ids: tf.Tensor, ids: tf.Tensor
    ) -> tf.RaggedTensor:
        """Ids of the pieces that end at `last`, unknown ones joined."""
        ends = tf.cast(tf.where(last)[:, 0], tf.int32)
        sizes = tf.gather(length, ends)
        found = tf.gather(piece_ids, ends)
        words = tf.gather(text.words, ends)
        unknown = (found < 0) | (found == self.unknown)
        previous = tf.concat([tf.zeros_like(unknown[:1]), unknown[:-1]], 0)
        joined = unknown & previous & ~changes(words)
        # A run of unknown pieces may be a piece itself.
        run = tf.cumsum(tf.cast(~joined, tf.int32)) - 1
        runs = tf.reduce_sum(tf.cast(~joined, tf.int32))
        run_sizes = tf.math.unsorted_segment_sum(sizes, run, runs)
        run_ends = tf.math.unsorted_segment_max(ends, run, runs)
        width = self.trie.longest
        inside = run_sizes <= width
        columns = tf.where(inside, width - run_sizes, 0)
        numbers = tf.gather_nd(ids, tf.stack([run_ends, columns], 1))
        numbers = tf.where(inside, numbers, -1)
        count = tf.reduce_sum(tf.cast(text.starts, tf.int64))
        word = tf.cumsum(tf.cast(text.starts, tf.int32)) - 1
        if self.bytes is None:
            numbers = tf.where(numbers < 0, self.unknown, numbers)
            owners = tf.gather(word, run_ends)
            return by_owner(numbers, owners, count)
        # Known runs give one id at their first place; unknown ones the bytes of each character.
        begins = run_ends - run_sizes + 1
        size = tf.shape(text.codes)[0]
        opened = tf.tensor_scatter_nd_add(
            tf.zeros([size], tf.int32), begins[:, None], tf.ones_like(begins)
        )
        owner = tf.cumsum(opened) - 1
        number = tf.gather(numbers, owner)
        spelled = number < 0
        kept = spelled | (opened > 0)
        marked = Text(text.codes, tf.where(spelled, -1, number), word).keep(kept)
        counts = tf.where(marked.rows < 0, marked.codes, 0x41)  # one byte where it stands for an id
        spread = bytes_of(marked.with_codes(counts))
        values = tf.where(
            spread.rows < 0, tf.gather(tf.constant(self.bytes), spread.codes), spread.rows
        )
        return by_owner(values, spread.words, count)
