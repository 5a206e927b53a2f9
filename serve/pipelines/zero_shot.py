"""Classes that no model was trained for, through natural-language inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from serve.bundle.manifest import Manifest
from serve.errors import BundleError, InputError
from serve.pipelines.base import for_each
from serve.pipelines.classification import LabelSettings, classified, mean_logits
from serve.pipelines.encoder import EncoderPipeline, softmax
from serve.pipelines.results import Classification
from serve.runtime.session import SessionOptions


@dataclass(frozen=True)
class ZeroShotSettings(LabelSettings):
    """Settings of zero-shot-classification.

    Attributes:
        candidate_labels: The labels to choose from: a list, or a text with commas between them.
        hypothesis_template: What is claimed of the text; `{}` stands for the label.
    """

    candidate_labels: Sequence[str] | str = ()
    hypothesis_template: str = "This example is {}."

    def __post_init__(self) -> None:
        super().__post_init__()
        labels = self.labels
        if not labels:
            raise InputError(
                "candidate_labels is empty: expected the labels to choose from, "
                "such as ['sport', 'politics']"
            )
        for label in labels:
            if not isinstance(label, str) or not label.strip():
                raise InputError(f"candidate_labels: {label!r} is no label, expected a text")
            if labels.count(label) > 1:
                raise InputError(f"candidate_labels: {label!r} is there twice")
        if not isinstance(self.hypothesis_template, str) or "{}" not in self.hypothesis_template:
            raise InputError(
                f"hypothesis_template={self.hypothesis_template!r}: expected a text with "
                "{} where the label goes"
            )

    @property
    def labels(self) -> list[str]:
        """The candidates one by one."""
        if isinstance(self.candidate_labels, str):
            return [label.strip() for label in self.candidate_labels.split(",") if label.strip()]
        return list(self.candidate_labels)

    def hypothesis(self, label: str) -> str:
        """What the model judges."""
        return self.hypothesis_template.replace("{}", label)


class ZeroShotClassifier(EncoderPipeline):
    """Which of any labels fits a text (task zero-shot-classification).

    A classifier of natural-language inference judges for every label whether the text entails the
    hypothesis "This example is <label>." (https://arxiv.org/abs/1909.00161). The logits of
    entailment are weighed against each other; with `multi_label`, or with a single label, each
    against its contradiction. The cost is one run per label. Windows as in text-classification.
    """

    settings_type = ZeroShotSettings
    windowed = "first"

    def __init__(
        self,
        manifest: Manifest,
        options: SessionOptions | None = None,
        batch_size: int = 32,
        batch_tokens: int | None = None,
    ) -> None:
        self.entailment, self.contradiction = inference_labels(manifest)
        super().__init__(manifest, options, batch_size, batch_tokens)

    @property
    def task(self) -> str:
        """Not the bundle's, which is text-classification."""
        return "zero-shot-classification"

    def settings(self, **given: Any) -> Any:
        """`multi_label` is off unless given."""
        return super().settings(**{"multi_label": False, **given})

    def _answer(self, items: Sequence[Any], settings: ZeroShotSettings) -> list[Classification]:
        labels = settings.labels
        texts = [first for first, _ in for_each(items, self._parts)]
        hypotheses = [settings.hypothesis(label) for label in labels]
        pairs = [(text, hypothesis) for text in texts for hypothesis in hypotheses]
        try:
            readings = self._read_pairs(pairs, settings)
        except InputError as error:
            error.row = None if error.row is None else error.row // len(labels)
            raise
        outputs = self._run_all(readings)
        logits = np.array(
            [
                mean_logits(reading, [piece["logits"] for piece in found])
                for reading, found in zip(readings, outputs, strict=True)
            ]
        ).reshape(len(items), len(labels), -1)
        results = []
        for row, of_text in enumerate(logits):
            mine = readings[row * len(labels) : (row + 1) * len(labels)]
            longest = max(mine, key=lambda reading: len(reading.pieces))
            read = replace(longest, truncated=any(reading.truncated for reading in mine))
            results.append(classified(labels, self._scores(of_text, settings), settings, read))
        return results

    def _scores(self, logits: np.ndarray, settings: ZeroShotSettings) -> np.ndarray:
        """[labels] from the logits of inference, [labels, classes]."""
        if settings.multi_label or len(logits) == 1:
            return softmax(logits[:, [self.contradiction, self.entailment]])[:, 1]
        return softmax(logits[:, self.entailment])


def inference_labels(manifest: Manifest) -> tuple[int, int]:
    """Which outputs of a classifier are entailment and contradiction.

    Raises:
        BundleError: It is no classifier of natural-language inference.
    """
    names = [label.lower() for label in manifest.labels or ()]
    entailed = [at for at, name in enumerate(names) if name.startswith("entail")]
    against = [at for at, name in enumerate(names) if name.startswith("contradict")]
    against = against or [at for at, name in enumerate(names) if name.startswith("not")]
    if len(entailed) != 1 or len(against) != 1:
        raise BundleError(
            "zero-shot-classification needs a classifier of natural-language inference, with the "
            f"labels 'entailment' and 'contradiction' (or 'not_entailment'); {manifest.name!r} has "
            f"{manifest.labels}: if it is one, name its labels and export it again"
        )
    return entailed[0], against[0]
