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
        targets: The only tokens to show, each a token of the vocabulary; their probabilities stay
            those among all tokens. By default any.
    """

    top_k: int = 5
    targets: Sequence[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("top_k", self.top_k)
        if self.top_k is None:
            raise InputError("top_k=None: expected a whole number from 1")
        if self.targets is not None and (isinstance(self.targets, str) or not self.targets):
            raise InputError(f"targets={self.targets!r}: expected a list of tokens")


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
        targets = None if settings.targets is None else self._target_ids(settings.targets)
        readings = self._read(items, settings)
        for_each(readings, self._check)

        def fill(piece: Piece, outputs: Outputs) -> tuple[tuple[Fill, ...], ...]:
            return tuple(
                self._fill(piece, at, outputs["logits"][at], settings.top_k, targets)
                for at, token in enumerate(piece.ids)
                if token == self.mask_id
            )

        return [
            FilledMasks(masks, reading.truncated)
            for reading, [masks] in zip(readings, self._run_all(readings, fill), strict=True)
        ]

    def _target_ids(self, targets: Sequence[str]) -> np.ndarray:
        """Ids of the targets, each a token as the vocabulary spells it or a text of one token."""
        ids = []
        for target in targets:
            if not isinstance(target, str):
                raise InputError(f"targets: {target!r} is no token, expected a text")
            found = self.tokenizer.backend.token_to_id(target)
            if found is None:
                encoded = self.tokenizer.backend.encode(target, add_special_tokens=False)
                if len(encoded) != 1:
                    raise InputError(
                        f"targets: {target!r} is no token of the vocabulary, which spells it "
                        f"{encoded.tokens}; a mask holds one token"
                    )
                found = encoded.ids[0]
                name = self.tokenizer.backend.id_to_token(found)
                unknown = getattr(self.tokenizer.backend.model, "unk_token", None)
                if name in (None, unknown) or name != encoded.tokens[0]:
                    raise InputError(
                        f"targets: {target!r} is no token of the vocabulary, which has only "
                        f"{name} for it"
                    )
            ids.append(found)
        return np.array(list(dict.fromkeys(ids)))

    def _check(self, reading: Reading) -> None:
        if self.mask_id not in reading.pieces[0].ids:
            cut = "; it was cut off with the end of the text" if reading.truncated else ""
            raise InputError(f"the text has no {self.mask_token} to fill{cut}")

    def _fill(
        self, piece: Piece, at: int, logits: np.ndarray, count: int, targets: np.ndarray | None
    ) -> tuple[Fill, ...]:
        weights = np.exp(logits.astype(np.float64) - logits.max())
        total = weights.sum()
        ids = list(piece.ids)
        fills = []
        if targets is None:
            chosen = top(logits, min(count, logits.size))
        else:
            chosen = targets[np.argsort(-logits[targets], kind="stable")[:count]]
        for token_id in chosen.tolist():
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
