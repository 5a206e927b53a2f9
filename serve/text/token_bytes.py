"""The bytes that each token adds to a text, in a form that automata over bytes can follow."""

from __future__ import annotations

import json
import random
import re
from bisect import bisect_left
from functools import cache, cached_property
from threading import Lock
from weakref import WeakKeyDictionary

import numpy as np

from serve.errors import InputError
from serve.text.tokenizer import TextTokenizer

_REPLACEMENT = "\ufffd"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_APART = b"\xff"  # stands between tokens; no text in UTF-8 holds it
_TRIES = 64  # random texts over which the table is compared with the decoder


class TokenBytes:
    """What each token adds to a text: as its first token, and behind others.

    Decoders of the SentencePiece kind drop the space before the first word, so the two differ;
    byte-level ones make no difference. Special tokens add nothing.

    Args:
        tokenizer: Any tokenizer whose decoder looks at one token at a time.

    Attributes:
        first: By token id, bytes that it adds to an empty text.
        rest: By token id, bytes that it adds behind another token; none for special tokens.

    Raises:
        InputError: What a token adds depends on its neighbours.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        backend = tokenizer.backend
        size = backend.get_vocab_size(with_added_tokens=True)
        known = backend.get_vocab(with_added_tokens=True)
        size = max(size, 1 + max(known.values(), default=0))  # ids may have gaps
        special = {n for n, token in backend.get_added_tokens_decoder().items() if token.special}
        names: list[str | None] = [None] * size
        for name, number in known.items():
            if number not in special:
                names[number] = name
        kinds = decoder_kinds(tokenizer)
        if kinds == ["ByteLevel"]:
            self.first = self.rest = [_from_letters(name) for name in names]
        else:
            self.first, self.rest = _by_decoding(tokenizer, names, "ByteFallback" in kinds)
        self._compare(tokenizer, kinds)

    @classmethod
    def of(cls, tokenizer: TextTokenizer) -> TokenBytes:
        """The table of a tokenizer, made once. Raises as the class does."""
        with _lock:
            if tokenizer not in _tables:
                _tables[tokenizer] = cls(tokenizer)
            return _tables[tokenizer]

    def _compare(self, tokenizer: TextTokenizer, kinds: list[str]) -> None:
        """Random texts come out as the decoder makes them, or the table is of no use."""
        tokens = [number for number, token in enumerate(self.rest) if token]
        draw = random.Random(0)
        rows = [draw.choices(tokens, k=draw.randint(1, 6)) for _ in range(_TRIES)]
        for row in rows:
            text = tokenizer.decode(row)
            made = self.text(row)
            if made != text and _REPLACEMENT not in made:
                raise InputError(
                    f"the decoder {'+'.join(kinds) or 'None'} writes {text!r} for the tokens "
                    f"{row}, which one at a time make {made!r}: constrained output needs a decoder "
                    "that looks at one token at a time, such as ByteLevel or Metaspace"
                )

    def spells(self, text: str) -> bool:
        """Whether some row of tokens makes the text."""
        wanted = text.encode()
        reached = {0}
        for start in range(len(wanted)):
            if start in reached:
                tokens = self._sets[0 if start == 0 else 1]
                ends = range(start + 1, min(start + self._longest, len(wanted)) + 1)
                reached.update(end for end in ends if wanted[start:end] in tokens)
        return len(wanted) in reached

    def holding(self, word: bytes) -> np.ndarray:
        """Tokens that hold a word, as the first or later, int64 [any]; a word is UTF-8."""
        found: set[int] = set()
        for joined, starts in self._joined:
            at = joined.find(word)
            while at >= 0:
                found.add(int(np.searchsorted(starts, at, "right")) - 1)
                at = joined.find(word, at + 1)
        return np.array(sorted(found), np.int64)

    def beginning_with(self, part: bytes) -> np.ndarray:
        """Tokens that begin with a part of a word, behind another token, int64 [any]."""
        tokens, ids = self._sorted
        begin = bisect_left(tokens, part)
        end = bisect_left(tokens, part + _APART, begin)  # behind all that go on in UTF-8
        return ids[begin:end]

    @cached_property
    def _joined(self) -> list[tuple[bytes, np.ndarray]]:
        """All tokens one behind the other, and where each starts: of those that come first, too."""
        tables = [self.rest] if self.first == self.rest else [self.rest, self.first]
        found = []
        for table in tables:
            sizes = [len(token) + len(_APART) for token in table]
            starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
            found.append((_APART.join(table), starts))
        return found

    @cached_property
    def _sorted(self) -> tuple[list[bytes], np.ndarray]:
        """The bytes of tokens behind others, sorted, and their ids."""
        order = sorted(range(len(self.rest)), key=self.rest.__getitem__)
        return [self.rest[number] for number in order], np.array(order, np.int64)

    @cached_property
    def blank(self) -> list[int]:
        """Tokens that vanish at the beginning of a text, but count as its first."""
        pairs = enumerate(zip(self.first, self.rest, strict=True))
        return [number for number, (first, rest) in pairs if rest and not first]

    @cached_property
    def _sets(self) -> tuple[set[bytes], set[bytes]]:
        """What can be written at the beginning, and later."""
        first, rest = set(self.first), set(self.rest)
        return (first | rest if self.blank else first), rest

    @cached_property
    def _longest(self) -> int:
        return max(map(len, (*self.first, *self.rest)), default=0)

    def text(self, ids: list[int]) -> str:
        """Text of the ids, for comparison with the decoder's."""
        made, table = b"", self.first
        for number in ids:
            if self.rest[number]:  # special tokens do not count
                made += table[number]
                table = self.rest
        return made.decode("utf-8", "replace")


_lock = Lock()
_tables: WeakKeyDictionary[TextTokenizer, TokenBytes] = WeakKeyDictionary()


def _by_decoding(
    tokenizer: TextTokenizer, names: list[str | None], fallback: bool
) -> tuple[list[bytes], list[bytes]]:
    """Ask the decoder, for each token alone and behind a plain one."""
    decode = tokenizer.backend.decode_batch
    alone = decode([[number] for number in range(len(names))])
    anchor = next(
        (
            number
            for number, text in enumerate(alone)
            if names[number] and re.fullmatch("[A-Za-z]+", text)
        ),
        None,
    )
    if anchor is None:
        raise InputError(
            "the tokenizer has no token of plain letters: constrained output needs one"
        )
    behind = decode([[anchor, number] for number in range(len(names))])
    skip = len(alone[anchor])
    first, rest = [], []
    for name, one, two in zip(names, alone, behind, strict=True):
        if name is None:
            first.append(b"")
            rest.append(b"")
        elif fallback and (byte := _BYTE_TOKEN.fullmatch(name)):
            raw = bytes([int(byte[1], 16)])
            first.append(raw if one else b"")
            rest.append(raw)
        else:
            first.append(one.encode())
            rest.append(two[skip:].encode())
    return first, rest


def decoder_kinds(tokenizer: TextTokenizer) -> list[str]:
    """Names of the steps of a tokenizer's decoder, such as `["Replace", "ByteFallback"]`."""
    decoder = tokenizer.backend.decoder
    if decoder is None:
        return []
    state = json.loads(decoder.__getstate__())
    return [step["type"] for step in state.get("decoders", [state])]


def byte_tokens(tokenizer: TextTokenizer) -> frozenset[int]:
    """Ids of `<0x00>` to `<0xFF>`, where the decoder makes bytes of them."""
    if "ByteFallback" not in decoder_kinds(tokenizer):
        return frozenset()
    found = (tokenizer.backend.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
    return frozenset(number for number in found if number is not None)


@cache
def _letters() -> dict[str, int]:
    """The character that GPT-2's byte-level coding writes for each byte, to the byte.

    Printable characters of Latin-1 stand for themselves, the other bytes in their order for the
    characters from U+0100 (https://github.com/openai/gpt-2, `bytes_to_unicode`).
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {chr(byte): byte for byte in plain}
    return letters | {chr(0x100 + at): byte for at, byte in enumerate(others)}


def _from_letters(name: str | None) -> bytes:
    """Bytes of a byte-level token; one with any other character is meant as it is written."""
    letters = _letters()
    if name is None:
        return b""
    if all(character in letters for character in name):
        return bytes(letters[character] for character in name)
    return name.encode()
