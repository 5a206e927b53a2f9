"""Text to ids and back, through the bundle's tokenizer.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from serve.bundle.manifest import Manifest, TokenizerSpec
from serve.errors import BundleError, InputError
from serve.text.unicode import half_character
from serve.text.windows import Piece

_MASKS = ("[MASK]", "<mask>")


class TextTokenizer:
    """The tokenizer of a bundle; safe to use from several threads.

    Lists are encoded by a thread pool of the library's own, which a process that forks afterwards
    is warned about: set TOKENIZERS_PARALLELISM=false in a server that forks after answering.

    Args:
        path: tokenizer.json.
        spec: The facts beside it.
        truncation: None to never cut; "longest_first" or "only_second" (of a pair) to cut at the
            model's max_length. What was cut off is in `Encoding.overflowing`.
        stride: Tokens that neighbouring pieces of a cut text share.
    """

    def __init__(
        self,
        path: str | Path,
        spec: TokenizerSpec,
        truncation: str | None = None,
        stride: int = 0,
    ) -> None:
        try:
            self.backend = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing more specific
            raise BundleError(f"{path} is not a tokenizer that can be loaded: {error}") from error
        self.spec = spec
        self.backend.no_padding()
        self.backend.no_truncation()
        if truncation is not None:
            self.backend.enable_truncation(spec.max_length, stride=stride, strategy=truncation)

    @classmethod
    def of(
        cls, manifest: Manifest, truncation: str | None = None, stride: int = 0
    ) -> TextTokenizer:
        """The tokenizer of a loaded bundle."""
        if manifest.tokenizer is None:
            raise BundleError(f"bundle {manifest.name!r} has no tokenizer: it takes token ids only")
        path = manifest.path(manifest.tokenizer.file)
        return cls(path, manifest.tokenizer, truncation, stride)

    def encode(
        self,
        texts: Sequence[str] | Sequence[Sequence[str]],
        pairs: Sequence[str] | None = None,
        words: bool = False,
    ) -> list[Encoding]:
        """Encode texts, or pairs of texts, or with `words` texts that are split into words."""
        inputs = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        for row, text in enumerate(inputs):
            for part in text if pairs is not None else (text,):
                if not isinstance(part, str) and not (words and isinstance(part, list | tuple)):
                    raise InputError(
                        f"expected a text, got {type(part).__name__}: {part!r:.60}", row
                    )
        special = self.spec.adds_special_tokens
        if len(inputs) > 1:
            try:
                return self.backend.encode_batch(
                    inputs, is_pretokenized=words, add_special_tokens=special
                )
            except Exception:  # the library does not say which text it was
                return [
                    self._encode_one(text, pairs is not None, words, row)
                    for row, text in enumerate(inputs)
                ]
        return [self._encode_one(text, pairs is not None, words, 0) for text in inputs]

    def _encode_one(self, text: Any, paired: bool, words: bool, row: int) -> Encoding:
        """One text, without the library's threads."""
        first, second = text if paired else (text, None)
        special = self.spec.adds_special_tokens
        try:
            return self.backend.encode(
                first, second, is_pretokenized=words, add_special_tokens=special
            )
        except Exception as error:  # lone surrogates, a text too long to hold the question, ...
            parts = [*first, *(second or ())] if words else [first, second]
            reason = half_character(*parts) or error
            raise InputError(f"the tokenizer cannot encode the text: {reason}", row) from error

    def batch(self, pieces: Sequence[Piece]) -> dict[str, np.ndarray]:
        """Right padded input_ids, attention_mask and token_type_ids, int64 [rows, longest]."""
        longest = max((len(piece) for piece in pieces), default=0)
        shape = (len(pieces), longest)
        ids = np.full(shape, self.spec.pad_token_id, np.int64)
        mask, types = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, piece in enumerate(pieces):
            size = len(piece)
            ids[row, :size] = piece.ids
            mask[row, :size] = 1
            types[row, :size] = piece.type_ids
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of the ids; ids beyond the vocabulary are left out."""
        return self.backend.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def mask_token_id(self) -> int:
        """Id of the mask token: the manifest's, or that of a token of the usual name."""
        if self.spec.mask_token_id is not None:
            return self.spec.mask_token_id
        for name in _MASKS:
            found = self.backend.token_to_id(name)
            if found is not None:
                return found
        raise BundleError(
            f"the tokenizer has no mask token: the manifest names none, and none of {_MASKS} exists"
        )
