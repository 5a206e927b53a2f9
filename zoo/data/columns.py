"""Examples of each task encoded into flat numpy columns, ready to be gathered into batches."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from zoo.data.alignment import IGNORED, align_tags, question_windows
from zoo.errors import ConfigError, DataError
from zoo.text.tokenizer import Tokenizer
from zoo.text.words import join_words

Examples = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Ragged:
    """Rows of unequal length, end to end.

    Attributes:
        flat: all values, int32.
        lengths: length of each row, int32.
        fill: what stands right of a row in a batch.
        side: `"input"` or `"target"`: which bucket boundary the rows are padded to.
    """

    flat: np.ndarray
    lengths: np.ndarray
    fill: int = 0
    side: str = "input"

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], fill: int = 0, side: str = "input") -> "Ragged":
        lengths = np.fromiter((len(row) for row in rows), np.int32, len(rows))
        flat = np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum()))
        return cls(flat, lengths, fill, side)


@dataclass(frozen=True)
class Columns:
    """The encoded examples: `x` is ragged, `y` ragged or plain (`{}`: no labels)."""

    x: dict[str, Ragged]
    y: dict[str, Ragged | np.ndarray]
    masked: bool = False  # fill-mask: ids are hidden while batches are made

    @property
    def lengths(self) -> np.ndarray:
        return self.x["input_ids"].lengths

    @property
    def target_lengths(self) -> np.ndarray | None:
        column = self.y.get("labels")
        return column.lengths if isinstance(column, Ragged) and column.side == "target" else None


@dataclass(frozen=True)
class Settings:
    """What the encoders of the tasks need beside the examples."""

    tokenizer: Tokenizer
    labels: Sequence[str] | None
    max_length: int | None
    max_target_length: int | None
    decoder_start_token_id: int | None
    stride: int | None
    pack: bool
    token_type_ids: bool | None


def encode_examples(examples: Examples, task: str, settings: Settings) -> Columns:
    """Encode the examples of one task.

    Raises:
        ConfigError: for a task without an encoder here.
        DataError: for an example that lacks a field or has a label that is not listed.
    """
    if task not in ENCODERS:
        near = difflib.get_close_matches(str(task), ENCODERS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(f"unknown task {task!r}{hint}; expected one of: {', '.join(ENCODERS)}")
    if not examples:
        raise DataError(f"no examples for {task}; expected at least one")
    columns = ENCODERS[task](examples, settings)
    empty = np.flatnonzero(columns.lengths == 0)
    if len(empty):
        raise DataError(f"example {empty[0]}: its text gives no tokens; drop blank examples first")
    return columns


def _field(examples: Examples, name: str) -> list[Any]:
    try:
        return [example[name] for example in examples]
    except KeyError:
        number, example = next((i, e) for i, e in enumerate(examples) if name not in e)
        raise DataError(f"example {number}: no {name!r}; it has {', '.join(example)}") from None


def _inputs(settings: Settings, encoded: Sequence[Any], pairs: bool) -> dict[str, Ragged]:
    tokenizer = settings.tokenizer
    x = {"input_ids": Ragged.of([e.ids for e in encoded], tokenizer.pad_token_id or 0)}
    wanted = settings.token_type_ids
    if wanted if wanted is not None else (pairs and tokenizer.uses_type_ids):
        x["token_type_ids"] = Ragged.of([e.type_ids for e in encoded])
    return x


def _texts(examples: Examples, settings: Settings, offsets: bool = False) -> dict[str, Ragged]:
    texts = _field(examples, "text")
    pairs = _field(examples, "pair") if "pair" in examples[0] else None
    encoded = settings.tokenizer.encode_raw(texts, pairs, settings.max_length, offsets=offsets)
    return _inputs(settings, encoded, pairs is not None)


class _Numbers(dict):
    """Label to number, with an error that helps."""

    def __init__(self, labels: Sequence[str] | None, what: str) -> None:
        super().__init__({label: i for i, label in enumerate(labels or ())})
        self.count, self.what = len(self), what
        if len(self) != len(labels or ()):
            raise ConfigError(f"labels has a name twice: {', '.join(map(str, labels or ()))}")

    def __missing__(self, label: Any) -> int:
        number = label.item() if isinstance(label, np.generic) else label
        if str(number) in self:  # a name that is written as a number
            return self[str(number)]
        if isinstance(number, int) and (
            0 <= number < self.count or (not self.count and number >= 0)
        ):
            return int(number)
        if not self.count:
            raise DataError(f"{self.what} {label!r} is not a number from 0; give labels=[...]")
        near = difflib.get_close_matches(str(label), [str(k) for k in self], n=1)
        hint = f" (nearest: {near[0]!r})" if near else ""
        known = ", ".join(map(str, list(self)[:12])) + (", ..." if self.count > 12 else "")
        raise DataError(f"{self.what} {label!r} is not among the labels{hint}: {known}")


def _text_classification(examples: Examples, settings: Settings) -> Columns:
    y: dict[str, Any] = {}
    if any("label" in example for example in examples):
        numbers = _Numbers(settings.labels, "label")
        y["labels"] = np.array([numbers[label] for label in _field(examples, "label")], np.int32)
    return Columns(_texts(examples, settings), y)


def _token_classification(examples: Examples, settings: Settings) -> Columns:
    joined = [join_words(tokens) for tokens in _field(examples, "tokens")]
    encoded = settings.tokenizer.encode_raw(
        [text for text, _ in joined], max_length=settings.max_length, offsets=True
    )
    y: dict[str, Any] = {}
    if any("tags" in example for example in examples):
        numbers = _Numbers(settings.labels, "tag")
        rows = []
        for number, (example, (_, spans), encoding) in enumerate(
            zip(examples, joined, encoded, strict=True)
        ):
            tags = [numbers[tag] for tag in _field([example], "tags")[0]]
            if len(tags) != len(spans):
                raise DataError(f"example {number}: {len(spans)} tokens but {len(tags)} tags")
            rows.append(align_tags(encoding.offsets, spans, tags))
        y["labels"] = Ragged.of(rows, IGNORED)
    return Columns(_inputs(settings, encoded, False), y)


def _fill_mask(examples: Examples, settings: Settings) -> Columns:
    if settings.tokenizer.mask_token_id is None:
        raise ConfigError(
            'fill-mask needs a mask token; train the tokenizer with template="encoder"'
        )
    return Columns(_texts(examples, settings), {}, masked=True)


def _question_answering(examples: Examples, settings: Settings) -> Columns:
    if settings.max_length is None:
        raise ConfigError("question-answering needs max_length, the tokens of one window")
    windows = question_windows(examples, settings.tokenizer, settings.max_length, settings.stride)
    y: dict[str, Any] = {}
    if any("answers" in example for example in examples):
        y["start_logits"] = np.array([window.start for window in windows], np.int32)
        y["end_logits"] = np.array([window.end for window in windows], np.int32)
    return Columns(_inputs(settings, windows, True), y)


def _features(examples: Examples, settings: Settings) -> Columns:
    return Columns(_texts(examples, settings), {})


def _text_generation(examples: Examples, settings: Settings) -> Columns:
    tokenizer, eos = settings.tokenizer, settings.tokenizer.eos_token_id
    fill = tokenizer.pad_token_id or 0
    limit = None if settings.pack or settings.max_length is None else settings.max_length + 1
    rows = [e.ids for e in tokenizer.encode_raw(_field(examples, "text"))]
    if settings.pack:
        if settings.max_length is None:
            raise ConfigError("text-generation packs texts into rows: give max_length")
        inputs, labels = pack(rows, settings.max_length, eos)
        lengths = (labels != IGNORED).sum(axis=1).astype(np.int32)
        real = labels != IGNORED
        x = Ragged(inputs[real], lengths, fill)
        return Columns({"input_ids": x}, {"labels": Ragged(labels[real], lengths, IGNORED)})
    rows = [_ended(row, eos)[:limit] for row in rows]
    return Columns(
        {"input_ids": Ragged.of([row[:-1] for row in rows], fill)},
        {"labels": Ragged.of([row[1:] for row in rows], IGNORED)},
    )


def _ended(row: list[int], eos: int | None) -> list[int]:
    return row if eos is None or row[-1:] == [eos] else [*row, eos]


def pack(
    rows: Sequence[Sequence[int]], length: int, eos: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Lay documents end to end and cut the stream into rows for next-token prediction.

    Each row reads `length` tokens; its labels are the same tokens one further on, so that rows
    overlap by one and every token but the first is predicted exactly once.

    Args:
        rows: the ids of each document; `eos` is put after each that does not end with it.
        length: tokens per row.
        eos: id of the end token; None puts nothing between documents.

    Returns:
        inputs and labels, int32 `[count, length]`; only the last row may be short: 0 and -100
        there.
    """
    if eos is not None:
        rows = [row if row and row[-1] == eos else [*row, eos] for row in rows]
    stream = np.fromiter(chain.from_iterable(rows), np.int32)
    if len(stream) < 2:
        raise DataError("the texts hold fewer than two tokens; nothing to predict")
    count = -(-(len(stream) - 1) // length)
    inputs = np.zeros(count * length, np.int32)
    labels = np.full(count * length, IGNORED, np.int32)
    inputs[: len(stream) - 1] = stream[:-1]
    labels[: len(stream) - 1] = stream[1:]
    return inputs.reshape(count, length), labels.reshape(count, length)


def _text2text(examples: Examples, settings: Settings) -> Columns:
    tokenizer = settings.tokenizer
    start = settings.decoder_start_token_id
    start = tokenizer.pad_token_id if start is None else start
    if start is None:
        raise ConfigError(
            "the tokenizer has no pad token to start with: give decoder_start_token_id"
        )
    sources = tokenizer.encode_raw(_field(examples, "source"), max_length=settings.max_length)
    x = _inputs(settings, sources, False)
    most, eos = settings.max_target_length, tokenizer.eos_token_id
    rows = [e.ids for e in tokenizer.encode_raw(_field(examples, "target"), max_length=most)]
    rows = [row if row[-1:] == [eos] else _ended(row[: most and most - 1], eos) for row in rows]
    pad = tokenizer.pad_token_id or 0
    x["decoder_input_ids"] = Ragged.of([[start, *row[:-1]] for row in rows], pad, "target")
    return Columns(x, {"labels": Ragged.of(rows, IGNORED, "target")})


ENCODERS: dict[str, Callable[[Examples, Settings], Columns]] = {
    "text-classification": _text_classification,
    "token-classification": _token_classification,
    "fill-mask": _fill_mask,
    "question-answering": _question_answering,
    "feature-extraction": _features,
    "sentence-similarity": _features,
    "text-generation": _text_generation,
    "text2text-generation": _text2text,
}
