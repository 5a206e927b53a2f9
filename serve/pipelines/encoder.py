"""What the encoder pipelines share: reading inputs, batching by length, one graph run per batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from tokenizers import Encoding

from serve.bundle.manifest import Manifest
from serve.errors import BundleError, InputError
from serve.pipelines.base import (
    Pipeline,
    check_choice,
    check_count,
    check_size,
    for_each,
    read_settings,
)
from serve.runtime.batching import token_batches
from serve.runtime.session import Session, SessionOptions
from serve.text.tokenizer import TextTokenizer
from serve.text.windows import Part, Piece, Reading, read_cut, read_windows

Outputs = dict[str, np.ndarray]
_ENCODED = 256  # texts that the tokenizer, which hears no interrupt, is given at a time


@dataclass(frozen=True)
class EncoderSettings:
    """Settings of every encoder pipeline.

    Attributes:
        long: What to do with a text longer than the model reads: "windows" reads all of it in
            overlapping windows, "cut" answers about the beginning and says so in the result,
            "error" raises InputError. None: the task's default.
        stride: Tokens that neighbouring windows share; by default a quarter of a window.
    """

    long: str | None = None
    stride: int | None = None

    def __post_init__(self) -> None:
        stride = self.stride
        whole = isinstance(stride, int) and not isinstance(stride, bool)
        if stride is not None and not (whole and stride >= 0):
            raise InputError(f"stride={stride!r}: expected a whole number from 0")


class EncoderPipeline(Pipeline):
    """Base of the pipelines that read a text and answer about it.

    Args:
        manifest: The bundle.
        options: How to run its graph.
        batch_size: Most texts (or windows of long ones) per run of the graph.
        batch_tokens: Most tokens per run, padding included; by default `tokens_per_run`.
    """

    settings_type: type[EncoderSettings] = EncoderSettings
    long_choices: tuple[str, ...] = ("windows", "cut", "error")  # the first is the default
    windowed: Part = "longest"  # which text of a pair is split
    pair_names: tuple[str, str] = ("text", "pair")  # keys of a dict input
    pairs: Literal["no", "may", "must"] = "no"
    outputs: tuple[str, ...] = ("logits",)
    by_token: frozenset[str] = frozenset()  # outputs whose axis 1 is time

    def __init__(
        self,
        manifest: Manifest,
        options: SessionOptions | None = None,
        batch_size: int = 32,
        batch_tokens: int | None = None,
    ) -> None:
        check_size("batch_size", batch_size)
        check_count("batch_tokens", batch_tokens)
        self.manifest = manifest
        self.tokenizer = TextTokenizer.of(manifest)
        self.session = Session(manifest.path(manifest.graphs["model"].file), options)
        self.batch_size = batch_size
        self.batch_tokens = batch_tokens or tokens_per_run(manifest, self.session.device)
        missing = [name for name in self.outputs if name not in self.session.outputs]
        if missing:
            raise BundleError(
                f"task {self.task} needs the outputs {missing}, "
                f"the graph has {list(self.session.outputs)}"
            )

    @classmethod
    def input_keys(cls) -> tuple[tuple[str, ...], ...]:
        """The keys of pairs, where the task takes pairs."""
        return () if cls.pairs == "no" else (cls.pair_names,)

    def settings(self, **given: Any) -> Any:
        """The task's settings, an object of `settings_type`."""
        chosen = {"long": self.long_choices[0], **given}
        check_choice("long", chosen["long"], self.long_choices)
        return read_settings(self.settings_type, chosen, self.task)

    def _read(self, items: Sequence[Any], settings: EncoderSettings) -> list[Reading]:
        """How each text, pair or dict is read."""
        return self._read_pairs(for_each(items, self._parts), settings)

    def _read_pairs(
        self, parts: Sequence[tuple[str, str | None]], settings: EncoderSettings
    ) -> list[Reading]:
        """How texts, alone (beside None) or in pairs, are read; a batch may mix both."""
        encodings: list[Encoding | None] = [None] * len(parts)
        for paired in (False, True):
            rows = [row for row, (_, second) in enumerate(parts) if (second is not None) == paired]
            if not rows:
                continue
            firsts = [parts[row][0] for row in rows]
            seconds = [str(parts[row][1]) for row in rows] if paired else None
            try:
                found = self._encoded(firsts, seconds)
            except InputError as error:
                error.row = None if error.row is None else rows[error.row]
                raise
            for row, encoding in zip(rows, found, strict=True):
                encodings[row] = encoding
        return self._fit([encoding for encoding in encodings if encoding is not None], settings)

    def _encoded(
        self, texts: Sequence[Any], pairs: Sequence[str] | None = None, words: bool = False
    ) -> list[Encoding]:
        """As `TextTokenizer.encode`, some at a time."""
        found: list[Encoding] = []
        for first in range(0, len(texts), _ENCODED):
            part = slice(first, first + _ENCODED)
            seconds = None if pairs is None else pairs[part]
            try:
                found += self.tokenizer.encode(texts[part], seconds, words)
            except InputError as error:
                error.row = None if error.row is None else error.row + first
                raise
        return found

    def _fit(self, encodings: Sequence[Encoding], settings: EncoderSettings) -> list[Reading]:
        """Windows, cuts or refusals for what is longer than the model reads."""
        longest = self.tokenizer.spec.max_length

        def fit(encoding: Encoding) -> Reading:
            if settings.long == "windows":
                return read_windows(encoding, longest, settings.stride, self.windowed)
            if settings.long == "error" and len(encoding) > longest:
                ways = " or ".join(f"long={way!r}" for way in self.long_choices if way != "error")
                raise InputError(
                    f"{len(encoding)} tokens are longer than the model's {longest}; shorten the "
                    f"text, or pass {ways}"
                )
            return read_cut(encoding, longest, self.windowed)

        return for_each(encodings, fit)

    def _parts(self, item: Any) -> tuple[str, str | None]:
        """First and second text of an input."""
        first: Any = item
        second: Any = None
        if isinstance(item, Mapping):
            unknown = set(item) - set(self.pair_names)
            if unknown or self.pair_names[0] not in item:
                keys = list(self.pair_names) if self.pairs != "no" else [self.pair_names[0]]
                raise InputError(
                    f"an input of {self.task} has the keys {keys}, not {sorted(map(str, item))}"
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

    def _run(
        self,
        pieces: Sequence[Piece],
        keep: Callable[[int, Outputs], Any] | None = None,
    ) -> list[Any]:
        """Run the graph over pieces of any lengths.

        Args:
            pieces: Encodings and windows.
            keep: What to keep of a piece's outputs, by its position: outputs of every token are
                large, and those of all pieces together may be too much.

        Returns:
            What was kept of each piece, in order; by default its outputs, without the padding.
        """
        results: list[Any] = [None] * len(pieces)
        sizes = [len(piece) for piece in pieces]
        for batch in token_batches(sizes, self.batch_tokens, self.batch_size):
            outputs = self.session.run(
                self.tokenizer.batch([pieces[row] for row in batch]), self.outputs
            )
            for line, row in enumerate(batch):
                mine = {
                    name: values[line, : sizes[row]] if name in self.by_token else values[line]
                    for name, values in outputs.items()
                }
                results[row] = mine if keep is None else keep(row, mine)
        return results

    def _run_all(
        self,
        readings: Sequence[Reading],
        keep: Callable[[Piece, Outputs], Any] | None = None,
    ) -> list[list[Any]]:
        """Outputs of each piece of each reading; `keep` as in `_run`, by the piece itself."""
        pieces = [piece for reading in readings for piece in reading.pieces]

        def kept(row: int, outputs: Outputs) -> Any:
            return outputs if keep is None else keep(pieces[row], outputs)

        found = iter(self._run(pieces, kept))
        return [[next(found) for _ in reading.pieces] for reading in readings]


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


def class_scores(logits: np.ndarray, problem_type: str | None = None) -> np.ndarray:
    """Probabilities of the classes, or what else the logits are (see `ProblemType`).

    A single class is weighed against its absence, as each of several that may hold together.
    """
    if problem_type == "regression":
        return logits.astype(np.float64)
    if logits.shape[-1] == 1 or problem_type == "multi_label_classification":
        return sigmoid(logits)
    return softmax(logits)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities of classes that may hold together, in float64."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))  # exp() would overflow


def label_names(manifest: Manifest, count: int) -> list[str]:
    """The labels of a classifier with `count` outputs."""
    if manifest.labels is None:
        return [str(index) for index in range(count)]
    if len(manifest.labels) != count:
        raise BundleError(f"the manifest has {len(manifest.labels)} labels, the graph {count}")
    return manifest.labels
