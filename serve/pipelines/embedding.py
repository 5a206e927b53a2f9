"""Vectors of tokens and of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from serve.bundle.manifest import Manifest
from serve.pipelines.base import for_each
from serve.pipelines.encoder import EncoderPipeline, EncoderSettings
from serve.pipelines.results import Embedding, Features, Similarity
from serve.runtime.session import SessionOptions


class SentenceEmbedder(EncoderPipeline):
    """A text's vector, or the similarity of a pair (task sentence-similarity).

    Pooling and normalisation are part of the graph.
    """

    pairs = "may"
    outputs = ("sentence_embedding",)
    long_choices = ("cut", "error")

    def _answer(
        self, items: Sequence[Any], settings: EncoderSettings
    ) -> list[Embedding | Similarity]:
        parts = for_each(items, self._parts)  # a pair is two texts, each embedded alone
        texts = [text for pair in parts for text in pair if text is not None]
        readings = self._read(texts, settings)
        vectors = [
            Embedding(outputs["sentence_embedding"], reading.truncated)
            for reading, [outputs] in zip(readings, self._run_all(readings), strict=True)
        ]
        found = iter(vectors)
        return [
            next(found) if second is None else similarity(next(found), next(found))
            for _, second in parts
        ]


class FeatureExtractor(EncoderPipeline):
    """Hidden states of a text's tokens (task feature-extraction).

    Where the graph pools them itself (output sentence_embedding), the answer is the text's vector.
    """

    by_token = frozenset({"last_hidden_state"})
    long_choices = ("cut", "error")

    def __init__(
        self,
        manifest: Manifest,
        options: SessionOptions | None = None,
        batch_size: int = 32,
        batch_tokens: int | None = None,
    ) -> None:
        names = {output.name for output in manifest.graphs["model"].outputs}
        self.outputs = (
            ("sentence_embedding",) if "sentence_embedding" in names else ("last_hidden_state",)
        )
        super().__init__(manifest, options, batch_size, batch_tokens)

    def _answer(
        self, items: Sequence[Any], settings: EncoderSettings
    ) -> list[Features | Embedding]:
        readings = self._read(items, settings)
        results: list[Features | Embedding] = []
        for reading, [outputs] in zip(readings, self._run_all(readings), strict=True):
            values, cut = outputs[self.outputs[0]], reading.truncated
            if self.outputs[0] == "sentence_embedding":
                results.append(Embedding(values, cut))
            else:
                results.append(Features(tuple(reading.pieces[0].tokens), values, cut))
        return results


def similarity(first: Embedding, second: Embedding) -> Similarity:
    """Cosine of two vectors; 0 where one has no length."""
    norms = float(np.linalg.norm(first.values) * np.linalg.norm(second.values))
    cosine = float(first.values @ second.values) / norms if norms else 0.0
    return Similarity(cosine, first.truncated or second.truncated)
