"""Added tokens, such as `<mask>` in a text: found before anything else, or in normalised text."""

import re
from typing import Any

import tensorflow as tf

from export.strings.codes import CODES, Spec, Text, decode, token_table
from export.strings.errors import InexactError
from export.strings.normalizer import WHITE_SPACE

_WALL = b"\xff"  # stands in no UTF-8


class AddedTokens(tf.Module):
    """Finds tokens, the leftmost and of these the longest, and cuts the texts at them.

    Args:
        tokens: Their specifications in tokenizer.json.
        content: A token's text as it is to be found.
    """

    def __init__(self, tokens: list[Spec], content: Any = None) -> None:
        super().__init__()
        self.expression: str | None = None
        spelled: dict[str, Spec] = {}
        for token in tokens:
            text = token["content"] if content is None else content(token["content"])
            if token["single_word"]:
                raise InexactError(f"the added token {text!r}, which must be a word of its own")
            if text:
                spelled[text] = token
        if not spelled:
            return
        self.table = token_table({text: token["id"] for text, token in spelled.items()})
        sides: dict[tuple[bool, bool], list[str]] = {}
        for text, token in spelled.items():
            sides.setdefault((token["lstrip"], token["rstrip"]), []).append(text)
        for side, texts in sides.items():
            for other in (t for kind, ts in sides.items() if kind != side for t in ts):
                if any(other.startswith(text) or text.startswith(other) for text in texts):
                    raise InexactError(f"added tokens that begin alike and take spaces: {other!r}")
        white = f"{WHITE_SPACE}*"
        parts = []
        for (left, right), texts in sides.items():
            longest = sorted(texts, key=lambda text: (-len(text), text))
            if left and any(re.match(r"\s", text) for text in spelled):
                raise InexactError("added tokens that begin with white space")
            either = "|".join(_escaped(text) for text in longest)
            parts.append(f"{white * left}({either}){white * right}")
        self.expression = "|".join(parts)
        groups = "".join(rf"\{number + 1}" for number in range(len(parts)))
        self.rewrite = _WALL + groups.encode() + _WALL

    def __call__(self, strings: tf.Tensor) -> Text:
        """Strings [M] without a wall as a text of M rows; every part is a word."""
        if self.expression is None:
            codes, rows = decode(strings)
            return Text(codes, rows, rows)
        cut = tf.strings.regex_replace(strings, self.expression, self.rewrite)
        return self.parts(cut)

    def parts(self, cut: tf.Tensor) -> Text:
        """Strings cut by walls, in which every second part is a token."""
        pieces = tf.strings.split(cut, _WALL)  # an empty string gives one empty part
        owner = tf.cast(pieces.value_rowids(), tf.int32)
        begins = tf.cast(tf.gather(pieces.row_starts(), pieces.value_rowids()), tf.int32)
        number = tf.range(tf.shape(owner)[0])
        is_token = (number - begins) % 2 == 1
        flat = pieces.values
        ids = self.table.lookup(tf.where(is_token, flat, b"")) if self.expression else number
        codes, piece = decode(tf.where(is_token, b"?", flat))
        token = tf.gather(is_token, piece)
        codes = tf.where(token, CODES + tf.gather(ids, piece), codes)
        return Text(codes, tf.gather(owner, piece), piece)

    def within(self, text: Text) -> Text:
        """Finds tokens in the words of a text that holds other added tokens already."""
        if self.expression is None:
            return text
        # Added tokens stand aside as one character each; their words are left as they are.
        aside = text.with_codes(tf.where(text.added, ord("?"), text.codes))
        strings = aside.strings()
        number = tf.cumsum(tf.cast(text.starts, tf.int32)) - 1
        first = tf.where(text.starts)[:, 0]
        added = tf.gather(text.added, first)
        cut = tf.strings.regex_replace(strings, self.expression, self.rewrite)
        found = self.parts(tf.where(added, b"?", cut))
        originals = tf.gather(text.codes, first)
        was_added = tf.gather(added, found.rows)
        codes = tf.where(was_added, tf.gather(originals, found.rows), found.codes)
        del number
        return Text(codes, tf.gather(tf.gather(text.rows, first), found.rows), found.words)


def _escaped(text: str) -> str:
    return "".join(c if c.isalnum() else rf"\x{{{ord(c):x}}}" for c in text)
