"""Classes of texts: one of several, or any of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serve.errors import InputError
from serve.pipelines.base import check_count
from serve.pipelines.encoder import (
    EncoderPipeline,
    EncoderSettings,
    class_scores,
    label_names,
)
from serve.pipelines.results import Classification
from serve.text.windows import Reading


@dataclass(frozen=True)
class LabelSettings(EncoderSettings):
    """Settings of pipelines that weigh labels against each other.

    Attributes:
        multi_label: Whether several labels may hold at once, each with a probability of its own.
        threshold: The probability from which a label holds, where several may; 0.5 by default.
        top_k: How many labels to show, best first; all by default.
    """

    multi_label: bool | None = None
    threshold: float | None = None
    top_k: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("top_k", self.top_k)
        if self.multi_label not in (None, True, False):
            raise InputError(f"multi_label={self.multi_label!r}: expected True or False")
        if self.threshold is None:
            return
        number = isinstance(self.threshold, int | float) and not isinstance(self.threshold, bool)
        if not number or not 0 <= self.threshold <= 1:
            raise InputError(f"threshold={self.threshold!r}: expected a number from 0 to 1")
        if not self.multi_label:
            raise InputError(
                f"threshold={self.threshold!r} means nothing where one label holds: "
                "pass multi_label=True"
            )


class TextClassifier(EncoderPipeline):
    """The class of a text, or of a pair of texts (task text-classification).

    A long text is read in windows: its logits are the mean of theirs, each weighted by the tokens
    that no window before it had. So every token counts once, a short rest at the end counts little,
    and a window that knows outweighs one that does not; of a pair, the longer text is split.
    """

    settings_type = LabelSettings
    pairs = "may"

    def settings(self, **given: Any) -> Any:
        """Without `multi_label` what the model was trained for, as far as the bundle says."""
        if given.get("multi_label") is None:
            given["multi_label"] = self.manifest.problem_type == "multi_label_classification"
        return super().settings(**given)

    def _answer(self, items: Sequence[Any], settings: LabelSettings) -> list[Classification]:
        readings = self._read(items, settings)
        results = []
        for reading, outputs in zip(readings, self._run_all(readings), strict=True):
            logits = mean_logits(reading, [found["logits"] for found in outputs])
            scores = class_scores(logits, self._problem_type(settings))
            results.append(
                classified(label_names(self.manifest, len(scores)), scores, settings, reading)
            )
        return results

    def _problem_type(self, settings: LabelSettings) -> str | None:
        if settings.multi_label:
            return "multi_label_classification"
        return "regression" if self.manifest.problem_type == "regression" else None


def mean_logits(reading: Reading, logits: Sequence[np.ndarray]) -> np.ndarray:
    """Logits of a text from those of its windows, each [labels] and weighted by new tokens."""
    return np.average(np.asarray(logits, np.float64), axis=0, weights=reading.weights)


def classified(
    labels: Sequence[str], scores: np.ndarray, settings: LabelSettings, reading: Reading
) -> Classification:
    """The result from a score of every label, [labels]; of equal scores the first label's."""
    order = np.argsort(-scores, kind="stable")[: settings.top_k].tolist()
    ranked = {labels[index]: float(scores[index]) for index in order}
    best = labels[order[0]]
    held = None
    if settings.multi_label:
        threshold = 0.5 if settings.threshold is None else settings.threshold
        held = tuple(label for label, score in ranked.items() if score >= threshold)
    return Classification(best, ranked[best], ranked, held, reading.truncated, len(reading.pieces))
