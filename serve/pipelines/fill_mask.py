"""Tokens that may stand at a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serve.bundle.manifest import Manifest
from serve.decoding.sampling import top
from serve.errors import InputError
from serve.pipelines.base import check_count, for_each
from serve.pipelines.encoder import EncoderPipeline, EncoderSettings, Outputs
from serve.pipelines.results import Fill, FilledMasks
from serve.runtime.session import SessionOptions
from serve.text.windows import Piece, Reading


@dataclass(frozen=True)
class FillSettings(EncoderSettings):
    """Settings of fill-mask.

    Attributes:
        top_k: How many tokens to show for every mask.
    """

    top_k: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("top_k", self.top_k)


class MaskFiller(EncoderPipeline):
    """The likeliest tokens at every mask of a text (task fill-mask).

    `mask_token` is what to write into the text.
    """

    settings_type = FillSettings
    long_choices = ("cut", "error")
    by_token = frozenset({"logits"})

    def __init__(
        self,
        manifest: Manifest,
        options: SessionOptions | None = None,
        batch_size: int = 32,
        batch_tokens: int | None = None,
    ) -> None:
        super().__init__(manifest, options, batch_size, batch_tokens)
        self.mask_id = self.tokenizer.mask_token_id()
        self.mask_token: str = self.tokenizer.backend.id_to_token(self.mask_id) or ""

    def _answer(self, items: Sequence[Any], settings: FillSettings) -> list[FilledMasks]:
        readings = self._read(items, settings)
        for_each(readings, self._check)

        def fill(piece: Piece, outputs: Outputs) -> tuple[tuple[Fill, ...], ...]:
            return tuple(
                self._fill(piece, at, outputs["logits"][at], settings)
                for at, token in enumerate(piece.ids)
                if token == self.mask_id
            )

        return [
            FilledMasks(masks, reading.truncated)
            for reading, [masks] in zip(readings, self._run_all(readings, fill), strict=True)
        ]

    def _check(self, reading: Reading) -> None:
        if self.mask_id not in reading.pieces[0].ids:
            cut = "; it was cut off with the end of the text" if reading.truncated else ""
            raise InputError(f"the text has no {self.mask_token} to fill{cut}")

    def _fill(
        self, piece: Piece, at: int, logits: np.ndarray, settings: FillSettings
    ) -> tuple[Fill, ...]:
        weights = np.exp(logits.astype(np.float64) - logits.max())
        total = weights.sum()
        ids = list(piece.ids)
        fills = []
        for token_id in top(logits, min(settings.top_k, logits.size)).tolist():
            ids[at] = token_id
            shown = [
                token
                for token, special in zip(ids, piece.special_tokens_mask, strict=True)
                if not special or token in (token_id, self.mask_id)
            ]
            name = self.tokenizer.backend.id_to_token(token_id) or ""
            text = self.tokenizer.decode(shown, skip_special_tokens=False)
            fills.append(Fill(name, token_id, float(weights[token_id] / total), text))
        return tuple(fills)
