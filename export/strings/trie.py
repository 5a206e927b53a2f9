"""Which tokens of a vocabulary stand at each place of a text."""

from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from export.strings.codes import pair_keys, table_of


class Trie(tf.Module):
    """Words of code points with a number each, walked from many places at once.

    Args:
        words: (word, number) pairs.
        roots: A word belongs under one of so many roots.
    """

    def __init__(self, words: Iterable[tuple[int, str, int]], roots: int = 1) -> None:
        super().__init__()
        edges: dict[int, int] = {}
        numbers = [-1] * roots
        self.longest = 0
        for root, word, number in words:
            node = root
            self.longest = max(self.longest, len(word))
            for character in word:
                key = node << 21 | ord(character)
                node = edges.get(key, 0)
                if not node:
                    node = edges[key] = len(numbers)
                    numbers.append(-1)
            numbers[node] = number
        self.edges = table_of(list(edges), list(edges.values()), -1)
        self.numbers = tf.Variable(np.array(numbers, "int32"), trainable=False, name="numbers")

    def walk(
        self, codes: tf.Tensor, ends: tf.Tensor, roots: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """All matches, by rising length.

        Args:
            codes: int32 [N].
            ends: int32 [N] where each code's word ends (exclusive).
            roots: int32 [N] which root a word that begins here hangs under.

        Returns:
            int32 [M] each: place, length, number.
        """

        def body(
            length: tf.Tensor, places: tf.Tensor, nodes: tf.Tensor, found: tf.TensorArray
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.TensorArray]:
            code = tf.gather(codes, places + length)
            nodes = self.edges.lookup(pair_keys(nodes, code, 21))
            places, nodes = (tf.boolean_mask(x, nodes >= 0) for x in (places, nodes))
            length += 1
            numbers = tf.gather(self.numbers, nodes)
            hits = tf.where(numbers >= 0)[:, 0]
            matched = tf.gather(places, hits)
            rows = tf.stack([matched, tf.fill(tf.shape(matched), length), tf.gather(numbers, hits)])
            found = found.write(length - 1, tf.transpose(rows))
            inside = places + length < tf.gather(ends, places)
            return (
                length,
                tf.boolean_mask(places, inside),
                tf.boolean_mask(nodes, inside),
                found,
            )

        any_ = tf.TensorShape([None])
        found = tf.TensorArray(
            tf.int32, 0, dynamic_size=True, infer_shape=False, element_shape=[None, 3]
        )
        state = tf.while_loop(
            lambda length, places, nodes, found: tf.size(places) > 0,
            body,
            (tf.constant(0), tf.range(tf.shape(codes)[0]), roots, found),
            shape_invariants=(tf.TensorShape([]), any_, any_, tf.TensorShape(None)),
            parallel_iterations=1,
        )
        rows = state[3].concat()
        return rows[:, 0], rows[:, 1], rows[:, 2]


def on_path(next_places: tf.Tensor, begin: tf.Tensor) -> tf.Tensor:
    """Boolean [N]: which places are met on the way from the places of `begin`.

    Args:
        next_places: int32 [N] where the way goes from each place; itself where it ends.
        begin: Boolean [N].
    """

    def body(met: tf.Tensor, jump: tf.Tensor, again: tf.Tensor) -> tuple[tf.Tensor, ...]:
        reached = tf.boolean_mask(jump, met)
        after = tf.tensor_scatter_nd_update(met, reached[:, None], tf.ones_like(reached, tf.bool))
        further = tf.gather(jump, jump)
        return after, further, tf.reduce_any(further != jump)

    any_ = tf.TensorShape([None])
    state = tf.while_loop(
        lambda met, jump, again: again,
        body,
        (begin, next_places, tf.size(begin) > 0),
        shape_invariants=(any_, any_, tf.TensorShape([])),
    )
    return state[0]
