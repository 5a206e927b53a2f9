"""Byte-pair encoding in the graph: the merge that was learnt first, again and again."""

import numpy as np
import tensorflow as tf

from export.strings.byte_pieces import byte_ids, bytes_of
from export.strings.codes import (
    CODES,
    PageTable,
    Spec,
    Text,
    by_length,
    by_owner,
    changes,
    pair_keys,
    table_of,
    token_table,
)
from export.strings.errors import InexactError

_NEVER = np.iinfo("int32").max


class Bpe(tf.Module):
    """Sennrich et al. (2016)'s model, on characters or on bytes written as characters."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        if spec.get("dropout"):
            raise InexactError("BPE with dropout")
        vocab: dict[str, int] = spec["vocab"]
        self.prefix, self.suffix = (
            spec.get(key) or "" for key in ("continuing_subword_prefix", "end_of_word_suffix")
        )
        self.bytes = byte_ids(vocab, spec.get("byte_fallback", False))
        if self.bytes is not None and (self.prefix or self.suffix):
            raise InexactError("BPE with byte pieces and affixes")
        unknown = spec.get("unk_token")
        self.unknown = None if unknown is None else vocab.get(unknown)
        if unknown is not None and self.unknown is None:
            raise InexactError(f"BPE whose unknown token {unknown!r} is not in its vocabulary")
        self.fuse = bool(spec.get("fuse_unk"))
        self.whole = None
        if spec.get("ignore_merges"):
            self.whole = token_table(vocab)
        self.symbols = [
            [_characters(vocab, before, behind) for behind in ("", self.suffix)]
            for before in ("", self.prefix)
        ]
        self._read_merges(spec["merges"], vocab)

    def _read_merges(self, merges: list, vocab: dict[str, int]) -> None:
        names = {number: token for token, number in vocab.items()}
        pairs: dict[int, int] = {}
        made = []
        for rank, merge in enumerate(merges):
            left, right = merge if isinstance(merge, list | tuple) else merge.split(" ", 1)
            a, b = vocab[left], vocab[right]
            pairs[a << 32 | b] = rank  # of the same pair twice the last counts
            made.append(vocab[left + right.removeprefix(self.prefix)])
        if self.unknown is not None and any(
            self.unknown in (key >> 32, key & 0xFFFFFFFF) for key in pairs
        ):
            raise InexactError("BPE that merges its unknown token")
        born: dict[int, int] = {}
        for rank, number in enumerate(made):
            born[number] = max(rank, born.get(number, -1))
        # Where a merge is always learnt before those of what it makes, all its places can be
        # merged at once: none of them gives way to a new pair.
        self.at_once = all(
            max(born.get(key >> 32, -1), born.get(key & 0xFFFFFFFF, -1)) < rank
            for key, rank in pairs.items()
        )
        ends = {
            number: (_symbol(token, self, -1), _symbol(token, self, 0))
            for number, token in names.items()
        }
        near = {(ends[key >> 32][0], ends[key & 0xFFFFFFFF][1]) for key in pairs}
        self.near = table_of([a << 21 | b for a, b in near], [1] * len(near), 0)
        self.ranks = table_of(list(pairs), list(pairs.values()), _NEVER)
        self.made = tf.Variable(np.array(made or [0], "int32"), trainable=False, name="made")

    def __call__(self, text: Text) -> tf.RaggedTensor:
        """Ids of each word of `text`."""
        count = tf.reduce_sum(tf.cast(text.starts, tf.int64))
        word = tf.cumsum(tf.cast(text.starts, tf.int32)) - 1
        symbols, words, groups = self._begin(Text(text.codes, text.codes, word))
        symbols, words = self._merged(symbols, words, groups)
        ids = by_owner(symbols, words, count)
        if self.whole is None:
            return ids
        known = self.whole.lookup(text.strings())
        single = by_length(known, tf.ones_like(known))
        size = tf.shape(known)[0]
        chosen = tf.range(size) + tf.where(known >= 0, size, 0)
        return tf.gather(tf.concat([ids, single], 0), chosen)

    def _begin(self, text: Text) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Symbols [S], their words, and groups within them that no merge reaches out of."""
        first, last = text.starts, text.ends
        (inner, final), (continued, both) = self.symbols
        ids = tf.where(last, final(text.codes), inner(text.codes)) - 1
        if self.prefix:
            more = tf.where(last, both(text.codes), continued(text.codes)) - 1
            ids = tf.where(first, ids, more)
        # Two neighbours that stand so in no merge: nothing is ever merged across them.
        apart = self.near.lookup(pair_keys(text.codes[:-1], text.codes[1:], 21)) == 0
        cut = tf.concat([tf.ones_like(first[:1]), apart], 0) | first | (ids < 0)
        groups = tf.cumsum(tf.cast(cut, tf.int32))
        if self.bytes is not None:
            missing = ids < 0
            marked = Text(tf.where(missing, text.codes, 0x41), ids, text.words)
            origin = tf.range(tf.shape(ids)[0])
            spread = bytes_of(Text(marked.codes, origin, text.words))
            known = tf.gather(ids, spread.rows)
            ids = tf.where(known < 0, tf.gather(tf.constant(self.bytes), spread.codes), known)
            return ids, spread.words, tf.gather(groups, spread.rows)
        kept = ids >= 0
        if self.unknown is not None:
            missing = ids < 0
            again = tf.concat([tf.zeros_like(missing[:1]), missing[:-1]], 0) & missing & ~first
            kept = ~again if self.fuse else tf.ones_like(missing)
            ids = tf.where(missing, self.unknown, ids)
        return tuple(tf.boolean_mask(x, kept) for x in (ids, text.words, groups))

    def _merged(
        self, symbols: tf.Tensor, words: tf.Tensor, groups: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        def ranked(symbols: tf.Tensor, groups: tf.Tensor) -> tf.Tensor:
            """Rank of the merge of each symbol with the next."""
            keys = pair_keys(symbols[:-1], symbols[1:], 32)
            ranks = tf.where(groups[1:] == groups[:-1], self.ranks.lookup(keys), _NEVER)
            return tf.concat([ranks, tf.fill(tf.minimum(tf.shape(symbols)[:1], 1), _NEVER)], 0)

        def body(
            symbols: tf.Tensor, words: tf.Tensor, groups: tf.Tensor, ranks: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            number = tf.cumsum(tf.cast(changes(groups), tf.int32)) - 1
            least = tf.gather(tf.math.segment_min(ranks, number), number)
            chosen = (ranks == least) & (ranks < _NEVER)
            places = tf.range(tf.shape(symbols)[0])
            before = tf.concat([tf.zeros_like(chosen[:1]), chosen[:-1]], 0)
            opens = tf.boolean_mask(places, chosen & ~before)
            run = tf.cumsum(tf.cast(chosen & ~before, tf.int32)) - 1
            offset = places - tf.gather(tf.concat([opens, [0]], 0), tf.maximum(run, 0))
            chosen &= offset % 2 == 0  # of three alike the first two
            if not self.at_once:
                wanted = tf.where(chosen, places, _NEVER)
                chosen &= tf.gather(tf.math.segment_min(wanted, number), number) == places
            new = tf.gather(self.made, tf.where(chosen, ranks, 0))
            symbols = tf.where(chosen, new, symbols)
            kept = ~tf.concat([tf.zeros_like(chosen[:1]), chosen[:-1]], 0)
            symbols, words, groups = (tf.boolean_mask(x, kept) for x in (symbols, words, groups))
            return symbols, words, groups, ranked(symbols, groups)

        any_ = tf.TensorShape([None])
        state = tf.while_loop(
            lambda symbols, words, groups, ranks: tf.reduce_any(ranks < _NEVER),
            body,
            (symbols, words, groups, ranked(symbols, groups)),
            shape_invariants=(any_, any_, any_, any_),
            parallel_iterations=1,
        )
        return state[0], state[1]


def _characters(vocab: dict[str, int], before: str, behind: str) -> PageTable:
    """1 + the id of each character with its affixes; 0 where there is none."""
    values = np.zeros(CODES, "int32")
    for token, number in vocab.items():
        alone = len(token) == len(before) + 1 + len(behind)
        if alone and token.startswith(before) and token.endswith(behind):
            values[ord(token[len(before)])] = number + 1
    return PageTable(values)


def _symbol(token: str, model: Bpe, place: int) -> int:
    """The code of a token's first or last character, affixes left out."""
    bare = token.removeprefix(model.prefix) if model.prefix else token
    if model.suffix and bare.endswith(model.suffix):
        bare = bare.removesuffix(model.suffix)
    return ord((bare or token)[place])
