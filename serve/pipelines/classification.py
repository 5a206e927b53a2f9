"""Classes of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from serve.pipelines.encoder import EncoderPipeline, EncoderSettings, class_scores, label_names
from serve.pipelines.results import Classification
from serve.text.windows import Reading


class TextClassifier(EncoderPipeline):
    """The class of a text, or of a pair of texts (task text-classification).

    A long text's logits are the mean over its windows, each weighted by the tokens that no window
    before it had.
    """

    pairs = "may"

    def _answer(self, items: Sequence[Any], settings: EncoderSettings) -> list[Classification]:
        readings = self._read(items, settings)
        results = []
        for reading, outputs in zip(readings, self._run_all(readings), strict=True):
            scores = class_scores(mean_logits(reading, [found["logits"] for found in outputs]))
            labels = label_names(self.manifest, len(scores))
            order = np.argsort(-scores, kind="stable").tolist()
            ranked = {labels[index]: float(scores[index]) for index in order}
            best = labels[order[0]]
            results.append(
                Classification(best, ranked[best], ranked, reading.truncated, len(reading.pieces))
            )
        return results


def mean_logits(reading: Reading, logits: Sequence[np.ndarray]) -> np.ndarray:
    """Logits of a text from those of its windows, each [labels] and weighted by new tokens."""
    return np.average(np.asarray(logits, np.float64), axis=0, weights=reading.weights)
