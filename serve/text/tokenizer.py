"""Text to ids and back, through the bundle's tokenizer.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer

from serve.bundle.manifest import Manifest, TokenizerSpec
from serve.errors import BundleError, InputError

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
        for text in (*texts, *(pairs or ())):
            if not isinstance(text, str) and not (words and isinstance(text, list | tuple)):
                raise InputError(f"expected a text, got {type(text).__name__}: {text!r:.60}")
        special = self.spec.adds_special_tokens
        inputs = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        try:
            if len(inputs) == 1:  # no thread pool for one text
                first, second = inputs[0] if pairs is not None else (inputs[0], None)
                return [
                    self.backend.encode(
                        first, second, is_pretokenized=words, add_special_tokens=special
                    )
                ]
            return self.backend.encode_batch(
                inputs, is_pretokenized=words, add_special_tokens=special
            )
        except Exception as error:  # lone surrogates, a text too long to hold the question, ...
            raise InputError(f"the tokenizer cannot encode the text: {error}") from error

    def batch(self, encodings: Sequence[Encoding]) -> dict[str, np.ndarray]:
        """Right padded input_ids, attention_mask and token_type_ids, int64 [rows, longest]."""
        longest = max((len(encoding) for encoding in encodings), default=0)
        shape = (len(encodings), longest)
        ids = np.full(shape, self.spec.pad_token_id, np.int64)
        mask, types = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, encoding in enumerate(encodings):
            size = len(encoding)
            ids[row, :size] = encoding.ids
            mask[row, :size] = 1
            types[row, :size] = encoding.type_ids
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
