"""Tokens that may stand at a mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import Encoding

from serve.bundle.manifest import Manifest
from serve.decoding.sampling import top
from serve.errors import InputError
from serve.pipelines.encoder import EncoderPipeline, Truncation
from serve.pipelines.results import Fill, FilledMasks
from serve.runtime.session import SessionOptions


class MaskFiller(EncoderPipeline):
    """The likeliest tokens at every mask of a text (task fill-mask).

    The setting `top_k` says how many; `mask_token` is what to write into the text.
    """

    by_token = frozenset({"logits"})

    def __init__(
        self, manifest: Manifest, options: SessionOptions | None = None, **batching: int
    ) -> None:
        super().__init__(manifest, options, **batching)
        self.mask_id = self.tokenizer.mask_token_id()
        self.mask_token: str = self.tokenizer.backend.id_to_token(self.mask_id) or ""

    def _answer(
        self, items: Sequence[Any], truncation: Truncation, **settings: Any
    ) -> list[FilledMasks]:
        count = settings.pop("top_k", 5)
        if settings:
            raise InputError(f"{self.task} has no setting {sorted(settings)[0]!r}")
        if not isinstance(count, int) or count < 1:
            raise InputError(f"top_k={count!r}: expected a whole number from 1")
        encodings = self._encode(items, truncation)
        for row, encoding in enumerate(encodings):
            if self.mask_id not in encoding.ids:
                cut = "; it was cut off with the end of the text" if encoding.overflowing else ""
                raise InputError(f"input {row} has no {self.mask_token} to fill{cut}")
        return [
            FilledMasks(
                tuple(
                    self._fill(encoding, at, outputs["logits"][at], count)
                    for at, token in enumerate(encoding.ids)
                    if token == self.mask_id
                ),
                bool(encoding.overflowing),
            )
            for encoding, outputs in zip(encodings, self._run(encodings), strict=True)
        ]

    def _fill(
        self, encoding: Encoding, at: int, logits: np.ndarray, count: int
    ) -> tuple[Fill, ...]:
        weights = np.exp(logits.astype(np.float64) - logits.max())
        total = weights.sum()
        ids = list(encoding.ids)
        fills = []
        for token_id in top(logits, min(count, logits.size)).tolist():
            ids[at] = token_id
            shown = [
                token
                for token, special in zip(ids, encoding.special_tokens_mask, strict=True)
                if not special or token in (token_id, self.mask_id)
            ]
            name = self.tokenizer.backend.id_to_token(token_id) or ""
            text = self.tokenizer.decode(shown, skip_special_tokens=False)
            fills.append(Fill(name, token_id, float(weights[token_id] / total), text))
        return tuple(fills)
