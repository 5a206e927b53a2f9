"""Text to ids and back, through the bundle's tokenizer.json; also text that grows by tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer

from serve.errors import BundleError, InputError
from serve.manifest import Manifest, TokenizerSpec

_REPLACEMENT = "\ufffd"  # what half a character decodes to
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


class Detokenizer:
    """Decodes a growing row of ids; never emits half a character.

    Only a short window is decoded again per token: it starts at the last point where the text was
    whole, one emission back, since a decoder may treat the first token of a text specially.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._start = 0  # of the window
        self._read = 0  # ids whose text was emitted
        self._known = ""  # text of ids[start:read]

    def push(self, token: int) -> str:
        """Add a token; returns the text that became certain, often one word, possibly none."""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids[self._start :])
        if len(text) <= len(self._known) or text.endswith(_REPLACEMENT):
            return ""
        return self._emit(text)

    def finish(self) -> str:
        """What was held back: a character that never became whole shows as U+FFFD."""
        return self._emit(self._tokenizer.decode(self._ids[self._start :]))

    def _emit(self, text: str) -> str:
        piece = text[len(self._known) :]
        self._start, self._read = self._read, len(self._ids)
        self._known = self._tokenizer.decode(self._ids[self._start : self._read])
        return piece


class StopCutter:
    """Passes text through until a stop string; holds back what may be the beginning of one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def push(self, piece: str) -> str:
        """Add text; returns what is certain to lie before any stop string."""
        if self.stopped or not self._stop:
            return "" if self.stopped else piece
        text = self._held + piece
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max(
            size
            for stop in self._stop
            for size in range(min(len(stop), len(text) + 1))
            if size == 0 or text.endswith(stop[:size])
        )
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """The text held back, now that nothing follows."""
        held, self._held = self._held, ""
        return held


class TextAssembler:
    """Makes text of the tokens of one row, and notices stop strings.

    Attributes:
        stopped: A stop string was met; the row needs no more tokens.
    """

    def __init__(self, tokenizer: TextTokenizer, stop: Sequence[str]) -> None:
        self._detokenizer = Detokenizer(tokenizer)
        self._cutter = StopCutter(stop)

    @property
    def stopped(self) -> bool:
        """Whether a stop string was met."""
        return self._cutter.stopped

    def push(self, token: int) -> str:
        """Add a token; returns the text that may be shown."""
        return self._cutter.push(self._detokenizer.push(token))

    def finish(self) -> str:
        """What was held back, once the row has ended."""
        return self._cutter.push(self._detokenizer.finish()) + self._cutter.finish()
