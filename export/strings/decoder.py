"""Ids back to text in the graph, as the decoder of a tokenizer.json puts tokens together."""

import json
import re
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tokenizers import Regex, decoders

from export.strings import pattern as patterns
from export.strings.codes import Spec, Text, decode, encode
from export.strings.errors import InexactError
from export.strings.normalizer import replaced
from zoo.text.training import byte_characters

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")
_LOST = "\ufffd"
_APOSTROPHES = (" n't", "n't"), (" 'm", "'m"), (" do not", " don't"), (" 's", "'s")
_CLEANED = (
    *((f" {mark}", mark) for mark in ".?!,"),
    (" ' ", "'"),
    *_APOSTROPHES,
    (" 've", "'ve"),
    (" 're", "'re"),
)


class TensorDecoder(tf.Module):
    """Rows of ids to strings, special tokens left out.

    Every id has a text of its own, and another where it is the first or last of a row; some texts
    are bytes. What follows happens to the joined text.

    Args:
        tokenizer: A `zoo.text.Tokenizer`.

    Raises:
        InexactError: Its decoder cannot be repeated exactly.
    """

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(name="decoder")
        backend = tokenizer.backend
        self.size = tokenizer.vocab_size
        tokens = [backend.id_to_token(number) for number in range(self.size)]
        special = set(tokenizer.special_ids)
        self.shown = [
            token is not None and number not in special for number, token in enumerate(tokens)
        ]
        self.texts: list[Any] = [token or "" for token in tokens]
        self.first: list[Any] | None = None
        self.last: list[Any] | None = None
        self.bytes: list[int] | None = None
        self.lossy = self.fused = False
        self.separator = ""
        self.steps: list[Callable[[tf.Tensor], tf.Tensor]] = []
        spec = json.loads(backend.to_str())["decoder"]
        if spec is None:
            self.separator = " "
        else:
            for part in spec["decoders"] if spec["type"] == "Sequence" else [spec]:
                self._add(part)

    def _add(self, spec: Spec) -> None:
        kind = spec["type"]
        if kind == "Fuse":
            self.fused = True
        elif kind in ("Replace", "Strip"):
            if self.fused:
                self.steps.append(_replace(spec) if kind == "Replace" else _strip(spec))
                return
            if self.bytes is not None:
                raise InexactError(f"the decoder {kind} between ByteFallback and Fuse")
            made = _decoder(spec)
            self._change(lambda text: made.decode([text]))
        elif self.fused or self.bytes is not None or self.first or self.last:
            raise InexactError(f"the decoder {kind} behind others")
        elif kind == "ByteLevel":
            values = {name: value for value, name in enumerate(byte_characters())}
            self._change(
                lambda text: (
                    bytes(values[c] for c in text)
                    if all(c in values for c in text)
                    else text.encode()
                )
            )
            self.lossy = self.fused = True
        elif kind == "ByteFallback":
            found = [_BYTE.match(text) for text in self.texts]
            self.bytes = [int(match[1], 16) if match else -1 for match in found]
        elif kind == "WordPiece":
            prefix, cleans = spec["prefix"], spec["cleanup"]
            self.first = [_cleaned(text) if cleans else text for text in self.texts]
            self.texts = [_following(text, prefix, cleans) for text in self.texts]
        elif kind == "Metaspace":
            mark = spec["replacement"]
            if spec.get("prepend_scheme", "always") != "never":
                self.first = [text.replace(mark, "") for text in self.texts]
            self._change(lambda text: text.replace(mark, " "))
        elif kind == "BPEDecoder":
            suffix = spec["suffix"]
            self.last = [text.replace(suffix, "") for text in self.texts]
            self._change(lambda text: text.replace(suffix, " "))
        else:
            raise InexactError(f"the decoder {kind}")

    def _change(self, function: Callable[[Any], Any]) -> None:
        self.texts = [function(text) for text in self.texts]
        self.first = self.first and [function(text) for text in self.first]
        self.last = self.last and [function(text) for text in self.last]

    def __call__(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Strings [B] of int32 ids [B, (N)]."""
        count = tf.cast(ids.nrows(), tf.int32)
        values, rows = ids.values, tf.cast(ids.value_rowids(), tf.int32)
        known = (values >= 0) & (values < self.size)
        known &= tf.gather(self.shown, tf.where(known, values, 0))
        values, rows = tf.boolean_mask(values, known), tf.boolean_mask(rows, known)
        texts = tf.gather(tf.constant(self.texts), values)
        change = rows[1:] != rows[:-1]
        edge = tf.ones_like(rows[:1], tf.bool)
        if self.first is not None:
            first = tf.concat([edge, change], 0)
            texts = tf.where(first, tf.gather(tf.constant(self.first), values), texts)
        if self.last is not None:
            last = tf.concat([change, edge], 0)
            texts = tf.where(last, tf.gather(tf.constant(self.last), values), texts)
        if self.bytes is not None:
            texts, rows = self._fallen_back(texts, values, rows)
        joined = tf.strings.unsorted_segment_join(texts, rows, count, separator=self.separator)
        if self.lossy:
            joined = tf.strings.unicode_transcode(joined, "UTF-8", "UTF-8", errors="replace")
        for step in self.steps:
            joined = step(joined)
        return joined

    def _fallen_back(
        self, texts: tf.Tensor, values: tf.Tensor, rows: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Joins bytes that stand together; where they are no text each is a lost character."""
        number = tf.gather(tf.constant(self.bytes), values)
        is_byte = number >= 0
        every = tf.constant([bytes([value]) for value in range(256)])
        texts = tf.where(is_byte, tf.gather(every, tf.maximum(number, 0)), texts)
        together = is_byte[1:] & is_byte[:-1] & (rows[1:] == rows[:-1])
        starts = tf.concat([tf.ones_like(is_byte[:1]), ~together], 0)
        run = tf.cumsum(tf.cast(starts, tf.int32)) - 1
        runs = tf.reduce_sum(tf.cast(starts, tf.int32))
        joined = tf.strings.unsorted_segment_join(texts, run, runs)
        lost = tf.strings.unsorted_segment_join(tf.where(is_byte, _LOST, texts), run, runs)
        whole = tf.strings.unicode_transcode(joined, "UTF-8", "UTF-8", errors="replace") == joined
        return tf.where(whole, joined, lost), tf.boolean_mask(rows, starts)


def _decoder(spec: Spec) -> Any:
    """A decoder of the library that changes every token for itself."""
    if spec["type"] == "Strip":
        return decoders.Strip(spec["content"], spec["start"], spec["stop"])
    kind, text = next(iter(spec["pattern"].items()))
    return decoders.Replace(Regex(text) if kind == "Regex" else text, spec["content"])


def _replace(spec: Spec) -> Callable[[tf.Tensor], tf.Tensor]:
    kind, source = next(iter(spec["pattern"].items()))
    node = patterns.literal(source) if kind == "String" else patterns.parse(source)
    step = replaced(node, spec["content"])

    def call(strings: tf.Tensor) -> tf.Tensor:
        codes, rows = decode(strings)
        text = step(Text(codes, rows, rows))
        sizes = tf.math.unsorted_segment_sum(
            tf.ones_like(text.rows), text.rows, tf.shape(strings)[0]
        )
        return encode(text.codes, sizes)

    return call


def _strip(spec: Spec) -> Callable[[tf.Tensor], tf.Tensor]:
    if spec["stop"]:
        raise InexactError("the decoder Strip at a text's end, where the library fails itself")
    front = rf"\A\x{{{ord(spec['content']):x}}}{{0,{spec['start']}}}"
    return lambda strings: tf.strings.regex_replace(strings, front, "", False)


def _following(text: str, prefix: str, cleans: bool) -> str:
    """A WordPiece token that is not the first."""
    text = text[len(prefix) :] if text.startswith(prefix) else f" {text}"
    return _cleaned(text) if cleans else text


def _cleaned(text: str) -> str:
    for old, new in _CLEANED:
        text = text.replace(old, new)
    return text
