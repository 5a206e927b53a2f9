"""Classes of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from serve.errors import InputError
from serve.pipelines.encoder import EncoderPipeline, Truncation, class_scores, label_names
from serve.pipelines.results import Classification


class TextClassifier(EncoderPipeline):
    """The class of a text, or of a pair of texts (task text-classification)."""

    pairs = "may"

    def _answer(
        self, items: Sequence[Any], truncation: Truncation, **settings: Any
    ) -> list[Classification]:
        if settings:
            raise InputError(f"{self.task} has no setting {sorted(settings)[0]!r}")
        encodings = self._encode(items, truncation)
        results = []
        for encoding, outputs in zip(encodings, self._run(encodings), strict=True):
            scores = class_scores(outputs["logits"])
            labels = label_names(self.manifest, len(scores))
            order = np.argsort(-scores, kind="stable").tolist()
            ranked = {labels[index]: float(scores[index]) for index in order}
            best = labels[order[0]]
            results.append(Classification(best, ranked[best], ranked, bool(encoding.overflowing)))
        return results
