"""The tokenizer of the zoo: one class over the Hugging Face `tokenizers` library."""

import difflib
import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tokenizers

from zoo.errors import ConfigError, DataError
from zoo.text import files, templates
from zoo.text.normalization import normalization_steps
from zoo.text.training import TRAINERS, Plan, corpus

Truncation = Literal["longest_first", "only_first", "only_second"]


@dataclass(frozen=True)
class Encoding:
    """One encoded text or pair, all lists of one length.

    Attributes:
        ids: token ids, special tokens included.
        type_ids: 0 for the first text, 1 for the second (where the template says so).
        attention_mask: 1 for a token, 0 for padding.
        offsets: `(start, end)` in characters of the text the token comes from; `(0, 0)` for
            special tokens.
        tokens: the tokens as the vocabulary writes them.
        sequence_ids: 0 or 1 for the text the token comes from, None for special tokens.
        overflow: the further windows of a truncated text, when a stride was asked for.
    """

    ids: list[int]
    type_ids: list[int]
    attention_mask: list[int]
    offsets: list[tuple[int, int]]
    tokens: list[str]
    sequence_ids: list[int | None]
    overflow: tuple["Encoding", ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer:
    """Text to ids and back.

    `tokenizer.json` holds everything that decides an id, the special tokens around a text
    included, so any program with the `tokenizers` library gets the same ids from it.
    `Tokenizer.backend` is that library's object; its truncation and padding are off except during
    a call.
    """

    def __init__(self, backend: tokenizers.Tokenizer, config: dict[str, Any] | None = None) -> None:
        backend.no_padding()
        backend.no_truncation()
        self.backend = backend
        self._config = dict(config or {})
        self.special_tokens: dict[str, str] = files.role_tokens(backend, self._config)
        self._lock = threading.Lock()
        limit = self._config.get("model_max_length")
        self.model_max_length: int | None = int(limit) if limit and limit < 10**9 else None
        names = self._config.get("model_input_names")
        self.uses_type_ids: bool = (
            "token_type_ids" in names
            if names
            else "sep" in self.special_tokens and 1 in backend.encode("a", "a").type_ids
        )

    # Making and storing

    @classmethod
    def train(
        cls,
        kind: str,
        texts: Iterable[str],
        vocab_size: int | None = None,
        lowercase: bool = False,
        min_frequency: int | None = None,
        special_tokens: Sequence[str] | None = None,
        normalization: str | Sequence[str] | None = None,
        template: str = "encoder",
        byte_fallback: bool = True,
        model_max_length: int | None = None,
    ) -> "Tokenizer":
        """Learn a vocabulary; the same texts in the same order always give the same one.

        Args:
            kind: `"wordpiece"`, `"bpe"` (byte-level), `"unigram"`, `"char"` or `"byte"`.
            texts: the corpus, one string per document or line.
            vocab_size: upper bound, special tokens included. None: 8000, or every character seen
                for `"char"`; `"byte"` always has 256 and the special tokens.
            lowercase: lower-case all text first.
            min_frequency: least count of a merged pair (BPE, WordPiece: 2) or of a character
                (`"char"`: 1).
            special_tokens: further special tokens, numbered after those of the template.
            normalization: names of `zoo.text.normalization.STEPS` joined by `+`, e.g. `"nfkc"`;
                None changes nothing.
            template: special tokens and how they stand around a text: `"encoder"`, `"seq2seq"` or
                `"decoder"`.
            byte_fallback: Unigram only: spell unknown characters in bytes rather than as the
                unknown token.
            model_max_length: stored in `tokenizer_config.json`, in tokens.

        Raises:
            ConfigError: for an unknown kind, template or normalisation, or a vocabulary too small.
            DataError: for an empty corpus.
        """
        _known("tokenizer kind", kind, TRAINERS)
        _known("template", template, templates.ROLES)
        if kind not in ("char", "unigram") and "edges" in str(normalization):
            raise ConfigError(
                f"normalization={normalization!r} does not go with kind={kind!r}, which knows the "
                "ends of words itself: leave 'edges' out"
            )
        roles = templates.roles(kind, template)
        plan = Plan(
            special_tokens=tuple(dict.fromkeys([*roles.values(), *(special_tokens or ())])),
            unk_token=roles.get("unk"),
            steps=tuple(normalization_steps(normalization, lowercase)),
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            byte_fallback=byte_fallback,
        )
        backend = TRAINERS[kind](corpus(texts), plan)
        templates.apply(backend, kind, template)
        names = ["input_ids", "attention_mask"]
        if template == "encoder":
            names.insert(1, "token_type_ids")
        config: dict[str, Any] = {f"{role}_token": token for role, token in roles.items()}
        if special_tokens:
            config["additional_special_tokens"] = list(special_tokens)
        if model_max_length is not None:
            config["model_max_length"] = model_max_length
        return cls(backend, config | {"model_input_names": names})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Tokenizer":
        """Read a `tokenizer.json`, an older file, or a folder (see `zoo.text.files`)."""
        return cls(*files.load_backend(path))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json` (see `zoo.text.files.write`)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = self._config | {f"{k}_token": token for k, token in self.special_tokens.items()}
        config.setdefault("clean_up_tokenization_spaces", False)
        config.setdefault("padding_side", "right")
        if self.model_max_length is not None:
            config["model_max_length"] = self.model_max_length
        with self._lock:
            backend = self.backend.to_str(pretty=True)
        files.write(folder, backend, config, self.backend.get_added_tokens_decoder())

    # Facts

    def _role(self, role: str) -> int | None:
        token = self.special_tokens.get(role)
        return None if token is None else self.backend.token_to_id(token)

    @property
    def vocab_size(self) -> int:
        """One more than the largest id: what an embedding table needs."""
        vocab = self.backend.get_vocab_size(with_added_tokens=True)
        if self.backend.id_to_token(vocab - 1) is not None:
            return vocab
        return max(self.backend.get_vocab().values()) + 1

    pad_token_id = property(lambda self: self._role("pad"))
    unk_token_id = property(lambda self: self._role("unk"))
    bos_token_id = property(lambda self: self._role("bos"))
    eos_token_id = property(lambda self: self._role("eos"))
    cls_token_id = property(lambda self: self._role("cls"))
    sep_token_id = property(lambda self: self._role("sep"))
    mask_token_id = property(lambda self: self._role("mask"))

    @property
    def special_ids(self) -> list[int]:
        """Ids of all special tokens, sorted."""
        added = self.backend.get_added_tokens_decoder()
        return sorted(number for number, token in added.items() if token.special)

    def token_to_id(self, token: str) -> int | None:
        """The id of a token as the vocabulary writes it."""
        return self.backend.token_to_id(token)

    def id_to_token(self, number: int) -> str | None:
        """The token of an id as the vocabulary writes it."""
        return self.backend.id_to_token(int(number))

    # Encoding

    def encode(
        self, text: str, pair: str | None = None, max_length: int | None = None, **options: Any
    ) -> Encoding:
        """Encode one text or pair; options as for `encode_batch`."""
        pairs = None if pair is None else [pair]
        return self.encode_batch([text], pairs, max_length, **options)[0]

    def encode_batch(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        max_length: int | None = None,
        truncation: Truncation = "longest_first",
        stride: int = 0,
        add_special_tokens: bool = True,
    ) -> list[Encoding]:
        """Encode texts or pairs.

        Args:
            texts: the first texts.
            pairs: the second texts, as many.
            max_length: most tokens of one window, special tokens included; None does not cut.
            truncation: which of a pair to shorten.
            stride: tokens that a window shares with the one before; windows after the first are in
                `Encoding.overflow`, with and without a stride.
            add_special_tokens: put the template's special tokens around the text.
        """
        raw = self.encode_raw(
            texts, pairs, max_length, truncation, stride, add_special_tokens, offsets=True
        )
        return [_public(encoding) for encoding in raw]

    def encode_raw(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        max_length: int | None = None,
        truncation: Truncation = "longest_first",
        stride: int = 0,
        add_special_tokens: bool = True,
        offsets: bool = False,
    ) -> list[tokenizers.Encoding]:
        """As `encode_batch`, giving the library's own objects; faster without `offsets`."""
        if isinstance(texts, str) or isinstance(pairs, str):
            raise DataError("expected a list of texts, got one string; use encode() or [text]")
        inputs: list[Any] = list(texts)
        if pairs is not None:
            if len(pairs) != len(inputs):
                raise DataError(f"{len(inputs)} texts but {len(pairs)} pairs; expected as many")
            inputs = list(zip(inputs, pairs, strict=True))
        if max_length is not None:
            taken = self.backend.num_special_tokens_to_add(pairs is not None)
            least = taken * add_special_tokens + 1 + stride
            if max_length < least:
                raise ConfigError(
                    f"max_length={max_length} leaves no room; expected at least {least} "
                    f"({taken} special tokens, stride {stride})"
                )
        run = self.backend.encode_batch if offsets else self.backend.encode_batch_fast
        with self._lock:
            try:
                if max_length is not None:
                    self.backend.enable_truncation(max_length, stride=stride, strategy=truncation)
                return run(inputs, add_special_tokens=add_special_tokens)
            except TypeError as error:
                raise DataError(f"expected strings to encode: {_wrong_item(inputs)}") from error
            except Exception as error:  # the library raises plain Exception
                raise DataError(
                    f"cannot encode with max_length={max_length}, "
                    f"truncation={truncation!r}: {error}"
                ) from error
            finally:
                self.backend.no_truncation()

    def __call__(
        self,
        texts: str | Sequence[str],
        pairs: str | Sequence[str] | None = None,
        max_length: int | None = None,
        padding: str | bool = "longest",
        pad_to_multiple_of: int | None = None,
        truncation: Truncation = "longest_first",
    ) -> dict[str, Any]:
        """Encode for a model: int32 arrays `[batch, time]`, padded on the right.

        Args:
            texts: one text or several.
            pairs: the second texts, as many.
            max_length: most tokens of a row; None does not cut.
            padding: `"longest"` (also True), `"max_length"`, or False for lists of unequal arrays.
            pad_to_multiple_of: round the width up to this multiple (never beyond `max_length`).
            truncation: which of a pair to shorten.

        Returns:
            `input_ids`, `attention_mask` and, for tokenizers that tell the texts of a pair apart,
            `token_type_ids`.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        pairs = [pairs] if isinstance(pairs, str) else pairs
        raw = self.encode_raw(texts, pairs, max_length, truncation)
        rows = {
            "input_ids": [e.ids for e in raw],
            "attention_mask": [e.attention_mask for e in raw],
        }
        if self.uses_type_ids:
            rows["token_type_ids"] = [e.type_ids for e in raw]
        if padding is False:
            return {k: [np.asarray(row, np.int32) for row in value] for k, value in rows.items()}
        width = max((len(e) for e in raw), default=0)
        if padding == "max_length":
            width = max_length or self.model_max_length or 0
            if not width:
                raise ConfigError('padding="max_length" needs max_length')
        elif padding not in (True, "longest"):
            raise ConfigError(f"padding={padding!r}; expected 'longest', 'max_length' or False")
        elif pad_to_multiple_of:
            width = -(-width // pad_to_multiple_of) * pad_to_multiple_of
            width = min(width, max_length) if max_length else width
        fill = {"input_ids": self.pad_token_id or 0}
        return {name: pad_rows(value, width, fill.get(name, 0)) for name, value in rows.items()}

    # Decoding

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Ids to text; ids below zero (ignored labels) are left out.

        Exact for `"bpe"`, `"byte"`, `"unigram"` and, for known characters, `"char"`, up to the
        normalisation; WordPiece does not keep spaces.
        """
        return self.backend.decode(_ids(ids), skip_special_tokens=skip_special_tokens)

    def decode_batch(
        self, rows: Iterable[Iterable[int]], skip_special_tokens: bool = True
    ) -> list[str]:
        """`decode` for several rows."""
        listed = [_ids(row) for row in rows]
        return self.backend.decode_batch(listed, skip_special_tokens=skip_special_tokens)


def pad_rows(rows: Sequence[Sequence[int]], width: int, fill: int) -> np.ndarray:
    """Rows of unequal length as one int32 array `[rows, width]`, filled on the right."""
    lengths = np.fromiter((len(row) for row in rows), np.int64, len(rows))
    flat = np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum()))
    out = np.full((len(rows), max(width, int(lengths.max(initial=0)))), fill, np.int32)
    out[np.arange(out.shape[1]) < lengths[:, None]] = flat
    return out[:, :width]


def _ids(ids: Iterable[int]) -> list[int]:
    return [number for number in (int(i) for i in ids) if number >= 0]


def _public(encoding: tokenizers.Encoding) -> Encoding:
    return Encoding(
        ids=encoding.ids,
        type_ids=encoding.type_ids,
        attention_mask=encoding.attention_mask,
        offsets=encoding.offsets,
        tokens=encoding.tokens,
        sequence_ids=encoding.sequence_ids,
        overflow=tuple(_public(window) for window in encoding.overflowing),
    )


def _known(what: str, name: str, choices: Iterable[str]) -> None:
    choices = list(choices)
    if name not in choices:
        near = difflib.get_close_matches(str(name), choices, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(f"unknown {what} {name!r}{hint}; expected one of: {', '.join(choices)}")


def _wrong_item(inputs: Sequence[Any]) -> str:
    for number, item in enumerate(inputs):
        parts = item if isinstance(item, tuple) else (item,)
        for part in parts:
            if not isinstance(part, str):
                return f"item {number} is {part!r} ({type(part).__name__})"
            if any("\ud800" <= character <= "\udfff" for character in part):
                return f"item {number} holds a lone surrogate, which is no character: {part[:60]!r}"
    return "an item is of the wrong type"
