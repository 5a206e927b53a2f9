"""What the encoder pipelines share: reading inputs, batching by length, one graph run per batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from tokenizers import Encoding

from serve.bundle.manifest import Manifest
from serve.errors import BundleError, InputError
from serve.runtime.batching import token_batches
from serve.runtime.session import Session, SessionOptions
from serve.text.tokenizer import TextTokenizer

Truncation = Literal["cut", "error"]


class EncoderPipeline(ABC):
    """Base of the pipelines that read a text once and answer about it.

    Args:
        manifest: The bundle.
        options: How to run its graph.
        batch_size: Most texts per run of the graph.
        batch_tokens: Most tokens per run, padding included; by default `tokens_per_run`.
    """

    pair_names: tuple[str, str] = ("text", "pair")  # keys of a dict input
    pairs: Literal["no", "may", "must"] = "no"
    outputs: tuple[str, ...] = ("logits",)
    by_token: frozenset[str] = frozenset()  # outputs whose axis 1 is time
    cut: str = "longest_first"

    def __init__(
        self,
        manifest: Manifest,
        options: SessionOptions | None = None,
        batch_size: int = 32,
        batch_tokens: int | None = None,
    ) -> None:
        self.manifest = manifest
        self.tokenizer = TextTokenizer.of(manifest, self.cut, self.stride(manifest))
        self.session = Session(manifest.path(manifest.graphs["model"].file), options)
        self.batch_size = batch_size
        self.batch_tokens = batch_tokens or tokens_per_run(manifest, self.session.device)
        missing = [name for name in self.outputs if name not in self.session.outputs]
        if missing:
            raise BundleError(
                f"task {manifest.task} needs the outputs {missing}, "
                f"the graph has {list(self.session.outputs)}"
            )

    @property
    def task(self) -> str:
        """The bundle's task."""
        return self.manifest.task

    def stride(self, manifest: Manifest) -> int:
        """Tokens that neighbouring pieces of a long text share, where pieces are read at all."""
        return 0

    def __call__(self, inputs: Any, *, truncation: Truncation = "cut", **settings: Any) -> Any:
        """Answer one input, or each of a list.

        Args:
            inputs: A text, a pair (a tuple of two texts), a dict, or a list of these.
            truncation: What to do with a text longer than the model reads: "cut" answers about
                the beginning and says so in the result, "error" raises InputError.
            **settings: Of the task.

        Returns:
            One result, or a list in the order of the inputs.
        """
        if truncation not in ("cut", "error"):
            raise InputError(f"truncation={truncation!r}: expected 'cut' or 'error'")
        single = not isinstance(inputs, list)
        items = [inputs] if single else inputs
        results = self._answer(items, truncation, **settings) if items else []
        return results[0] if single else results

    @abstractmethod
    def _answer(self, items: Sequence[Any], truncation: Truncation, **settings: Any) -> list[Any]:
        """One result per item."""

    def _encode(self, items: Sequence[Any], truncation: Truncation) -> list[Encoding]:
        """Encode texts, pairs and dicts; a batch may mix texts and pairs."""
        parts = [self._parts(item) for item in items]
        encodings: list[Encoding | None] = [None] * len(items)
        for paired in (False, True):
            rows = [row for row, (_, second) in enumerate(parts) if (second is not None) == paired]
            if not rows:
                continue
            firsts = [parts[row][0] for row in rows]
            seconds = [str(parts[row][1]) for row in rows] if paired else None
            for row, encoding in zip(rows, self.tokenizer.encode(firsts, seconds), strict=True):
                encodings[row] = encoding
        done = [encoding for encoding in encodings if encoding is not None]
        self._refuse_cut(done, truncation)
        return done

    def _refuse_cut(self, encodings: Sequence[Encoding], truncation: Truncation) -> None:
        cut = [row for row, encoding in enumerate(encodings) if encoding.overflowing]
        if cut and truncation == "error":
            raise InputError(
                f"input {cut[0]} is longer than the model's {self.tokenizer.spec.max_length} "
                "tokens; shorten it, or pass truncation='cut'"
            )

    def _parts(self, item: Any) -> tuple[str, str | None]:
        """First and second text of an input."""
        first: Any = item
        second: Any = None
        if isinstance(item, Mapping):
            unknown = sorted(set(item) - set(self.pair_names))
            if unknown or self.pair_names[0] not in item:
                raise InputError(
                    f"an input of {self.task} has the keys {list(self.pair_names)}, "
                    f"not {sorted(item)}"
                )
            first, second = item[self.pair_names[0]], item.get(self.pair_names[1])
        elif isinstance(item, tuple):
            if len(item) != 2:
                raise InputError(f"a tuple of {len(item)} is no pair: expected two texts")
            first, second = item
        for text in (first, second) if second is not None else (first,):
            if not isinstance(text, str):
                raise InputError(f"expected a text, got {type(text).__name__}: {text!r:.60}")
        if second is None and self.pairs == "must":
            raise InputError(
                f"{self.task} needs two texts: a dict with {list(self.pair_names)}, or a tuple"
            )
        if second is not None and self.pairs == "no":
            raise InputError(f"{self.task} takes one text per input, got a pair")
        return first, second

    def _run(self, encodings: Sequence[Encoding]) -> list[dict[str, np.ndarray]]:
        """Run the graph; per encoding its lines of the outputs, without the padding."""
        results: list[dict[str, np.ndarray]] = [{} for _ in encodings]
        sizes = [len(encoding) for encoding in encodings]
        for batch in token_batches(sizes, self.batch_tokens, self.batch_size):
            feeds = self.tokenizer.batch([encodings[row] for row in batch])
            outputs = self.session.run(feeds, self.outputs)
            for line, row in enumerate(batch):
                for name, values in outputs.items():
                    mine = values[line]
                    results[row][name] = mine[: sizes[row]] if name in self.by_token else mine
        return results


def tokens_per_run(manifest: Manifest, device: str) -> int:
    """Positions that a run of the graph should have at most.

    On a CPU what a run of 8-bit maps holds should fit the caches; float32 weights are four times
    the bytes, and better read for more positions at once.
    """
    return 512 if device == "cpu" and manifest.precision.startswith("int8") else 4096


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis, in float64."""
    weights = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def class_scores(logits: np.ndarray) -> np.ndarray:
    """Probabilities of the classes; a single one is weighed against its absence (logistic)."""
    if logits.shape[-1] == 1:
        return 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    return softmax(logits)


def label_names(manifest: Manifest, count: int) -> list[str]:
    """The labels of a classifier with `count` outputs."""
    if manifest.labels is None:
        return [str(index) for index in range(count)]
    if len(manifest.labels) != count:
        raise BundleError(f"the manifest has {len(manifest.labels)} labels, the graph {count}")
    return manifest.labels
