"""Matches regular expressions inside a graph.

TensorFlow's own expressions (RE2) know no lookaround and another version of Unicode. So a text is
first written in symbols, one for each kind of character that the expression tells apart, with what
its neighbours are where the expression asks for it. Over symbols the expression needs neither.
"""

from itertools import product

import numpy as np
import tensorflow as tf

from export.strings import pattern as patterns
from export.strings.codes import CODES, PageTable, Text, character_set, encode
from export.strings.errors import InexactError
from export.strings.pattern import Alt, Atom, Look, Node, Repeat, Seq

_MOST = 4000
_BEGIN, _END = "\x01", "\x02"
_FIRST = 0x21


class Matcher:
    """Finds what a regular expression matches, as `find_iter` does: leftmost, one by one.

    Raises:
        InexactError: The expression cannot be put so that it matches the same.
    """

    def __init__(self, node: Node) -> None:
        if patterns.may_be_empty(node):
            raise InexactError("a regular expression that may match nothing")
        atoms = patterns.atoms(node)
        self.looks = sorted({look for atom in atoms for look in atom.looks}, key=repr)
        names = [atom.pattern for atom in atoms] + [look.atom or "" for look in self.looks]
        self.names = sorted(set(names))
        if len(self.names) > 62:
            raise InexactError("a regular expression of very many kinds of characters")
        members = sum(
            character_set(name).astype("int64") << place for place, name in enumerate(self.names)
        )
        found, classes = np.unique(members, return_inverse=True)
        kinds = found[:, None] >> np.arange(len(self.names)) & 1 > 0
        nothing = np.zeros((1, len(self.names)), bool)
        self.kinds = np.concatenate([kinds, nothing])  # the last: an added token, or no character
        self.classes = PageTable(classes.ravel().astype("int32"), other=len(kinds))
        self.width = 2 ** len(self.looks)
        if len(self.kinds) * self.width > _MOST:
            raise InexactError("a regular expression that tells too many characters apart")
        self.first = _FIRST if _FIRST + len(self.kinds) * self.width < 0x7F else 0x100
        self.expression = f"(?s){self._write(node)}"

    def _column(self, name: str) -> np.ndarray:
        return self.kinds[:, self.names.index(name)]

    def _write(self, node: Node) -> str:
        if isinstance(node, Atom):
            return self._class(node)
        if isinstance(node, Seq):
            return "".join(self._write(part) for part in node.parts)
        if isinstance(node, Alt):
            return "(?:" + "|".join(self._write(branch) for branch in node.branches) + ")"
        assert isinstance(node, Repeat)
        most = "" if node.most is None else node.most
        if max(node.least, node.most or 0) > 1000:
            raise InexactError("a regular expression that counts beyond 1000")
        lazy = "" if node.greedy else "?"
        return f"(?:{self._write(node.part)}){{{node.least},{most}}}{lazy}"

    def _class(self, atom: Atom) -> str:
        wanted = [self.looks.index(look) for look in atom.looks]
        symbols = [
            self.first + kind * self.width + bits
            for kind, bits in product(range(len(self.kinds)), range(self.width))
            if self._column(atom.pattern)[kind] and all(bits >> look & 1 for look in wanted)
        ]
        if not symbols:
            return r"[^\x{0}-\x{10FFFF}]"
        ranges: list[list[int]] = []
        for symbol in symbols:
            if ranges and ranges[-1][1] == symbol - 1:
                ranges[-1][1] = symbol
            else:
                ranges.append([symbol, symbol])
        return "[" + "".join(rf"\x{{{a:x}}}-\x{{{b:x}}}" for a, b in ranges) + "]"

    def _met(self, look: Look, neighbours: tf.Tensor, there: tf.Tensor) -> tf.Tensor:
        """Boolean: which codes' neighbours meet a condition; `there`: there is one."""
        member = tf.gather(self._column(look.atom or ""), neighbours) & there
        return ~member if look.negative else member

    def __call__(self, text: Text) -> tuple[tf.Tensor, tf.Tensor]:
        """(first of a match or of what lies between two, part of a match), booleans [N]."""
        kinds = self.classes(text.codes)
        symbols = kinds * self.width
        for number, look in enumerate(self.looks):
            if look.ahead:
                neighbours, there = tf.concat([kinds[1:], kinds[:1]], 0), ~text.ends
            else:
                neighbours, there = tf.concat([kinds[-1:], kinds[:-1]], 0), ~text.starts
            symbols += tf.cast(self._met(look, neighbours, there), tf.int32) * 2**number
        strings = encode(symbols + self.first, text.word_lengths())
        marked = tf.strings.regex_replace(strings, self.expression, rf"{_BEGIN}\0{_END}")
        found = tf.strings.unicode_decode(marked, "UTF-8").values
        marker = found < _FIRST
        behind = tf.concat([tf.zeros_like(marker[:1]), marker[:-1]], 0)
        depth = tf.cumsum(
            tf.cast(found == ord(_BEGIN), tf.int32) - tf.cast(found == ord(_END), tf.int32)
        )
        inside = tf.boolean_mask(depth > 0, ~marker)
        return tf.boolean_mask(behind, ~marker), inside


class Boundaries:
    """Places between characters, at either end too, at which one of several conditions holds.

    Args:
        branches: The conditions, each a list of looks that must all be met.
    """

    def __init__(self, branches: list[list[Look]]) -> None:
        self.branches = [
            [(look, PageTable(character_set(look.atom or "").astype("int32"))) for look in branch]
            for branch in branches
        ]

    @classmethod
    def of(cls, node: Node) -> "Boundaries | None":
        """Those of an expression that matches nothing but places; None for another."""
        branches = node.branches if isinstance(node, Alt) else (node,)
        found = []
        for branch in branches:
            parts = branch.parts if isinstance(branch, Seq) else (branch,)
            choices = [part.branches if isinstance(part, Alt) else (part,) for part in parts]
            for choice in product(*choices):
                flat = [x for p in choice for x in (p.parts if isinstance(p, Seq) else (p,))]
                if not flat or not all(isinstance(part, Look) for part in flat):
                    return None
                found.append([part for part in flat if isinstance(part, Look)])
        return cls(found)

    def __call__(self, text: Text) -> tuple[tf.Tensor, tf.Tensor]:
        """(places before a code, places behind the last of a word), booleans [N]."""
        codes = text.codes
        previous = tf.concat([codes[-1:], codes[:-1]], 0)
        before = self._holds(previous, codes, ~text.starts, tf.ones_like(text.starts))
        behind = self._holds(codes, codes, tf.ones_like(text.ends), tf.zeros_like(text.ends))
        return before & ~text.added, behind & text.ends & ~text.added

    def _holds(
        self, left: tf.Tensor, right: tf.Tensor, has_left: tf.Tensor, has_right: tf.Tensor
    ) -> tf.Tensor:
        met = tf.zeros_like(has_left)
        for branch in self.branches:
            all_met = tf.ones_like(has_left)
            for look, table in branch:
                side, there = (right, has_right) if look.ahead else (left, has_left)
                member = (table(side) > 0) & there & (side < CODES)
                all_met &= ~member if look.negative else member
            met |= all_met
        return met
