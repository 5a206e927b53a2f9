"""Labels of the tokens of a text, and the entities they make up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from tokenizers import Encoding

from serve.errors import InputError
from serve.pipelines.base import check_choice, for_each
from serve.pipelines.encoder import (
    EncoderPipeline,
    EncoderSettings,
    Outputs,
    class_scores,
    label_names,
)
from serve.pipelines.entities import (
    AGGREGATIONS,
    OUTSIDE,
    ScoredToken,
    is_bio,
    labelled,
    merge,
    words_of,
)
from serve.pipelines.results import TokenLabel, TokenLabels
from serve.text.windows import Reading, best_places


@dataclass(frozen=True)
class TagSettings(EncoderSettings):
    """Settings of token-classification.

    Attributes:
        aggregation: How the labels of a word's pieces become labels of words and entities, as
            Hugging Face names it. "none" labels every piece; "simple" merges neighbouring pieces;
            the others give a word one label, and merge words: that of its "first" piece, that of
            its surest piece ("max"), or the best of its pieces' mean probabilities ("average").
            None: "first" where the input comes as words or the labels are of the BIO kind, else
            "simple".
    """

    aggregation: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.aggregation is not None:
            check_choice("aggregation", self.aggregation, AGGREGATIONS)


@dataclass(frozen=True)
class _Input:
    text: str
    words: list[str] | None

    @property
    def starts(self) -> list[int]:
        """Where each word begins in the text."""
        return [0, *accumulate(len(word) + 1 for word in self.words or ())]


class TokenClassifier(EncoderPipeline):
    """Labels of a text's tokens, and the entities they make up (task token-classification).

    An input is a text, or `{"tokens": [...]}` for a text that is split into words already; then a
    result has a label for every word, whatever the tokenizer makes of it, unless pieces are asked
    for. A long text is read in windows; in an overlap a token is labelled by the window that sees
    most around it.
    """

    settings_type = TagSettings
    by_token = frozenset({"logits"})

    @classmethod
    def input_keys(cls) -> tuple[tuple[str, ...], ...]:
        """A text may be split into words already."""
        return (("tokens",),)

    def _answer(self, items: Sequence[Any], settings: TagSettings) -> list[TokenLabels]:
        inputs = for_each(items, self._input)
        readings = self._fit(self._encode(inputs), settings)
        outputs = self._run_all(readings)
        return [
            self._label(given, reading, found, settings.aggregation)
            for given, reading, found in zip(inputs, readings, outputs, strict=True)
        ]

    def _input(self, item: Any) -> _Input:
        words = _words(item)
        return _Input(self._parts(item)[0] if words is None else " ".join(words), words)

    def _encode(self, inputs: Sequence[_Input]) -> list[Encoding]:
        """Texts and words apart, as the tokenizer wants them."""
        found: dict[int, Encoding] = {}
        for split in (False, True):
            rows = [row for row, item in enumerate(inputs) if (item.words is not None) == split]
            texts = [inputs[row].words or inputs[row].text for row in rows]
            try:
                encodings = self._encoded(texts, words=split)
            except InputError as error:
                error.row = None if error.row is None else rows[error.row]
                raise
            found.update(zip(rows, encodings, strict=True))
        return [found[row] for row in range(len(inputs))]

    def _label(
        self, given: _Input, reading: Reading, outputs: Sequence[Outputs], aggregation: str | None
    ) -> TokenLabels:
        pieces = _pieces(given, reading, outputs)
        labels = label_names(self.manifest, outputs[0]["logits"].shape[-1])
        by_word = given.words is not None or is_bio(labels)
        kind = aggregation or ("first" if by_word else "simple")
        if kind in ("none", "simple"):
            tokens = [labelled(given.text, [piece], labels, "first") for piece in pieces]
        else:
            groups = words_of(given.text, pieces, given.words is not None)
            tokens = [labelled(given.text, group, labels, kind) for group in groups]
            if given.words is not None:
                tokens = _every_word(given, groups, tokens, reading.truncated)
        spans = [] if kind == "none" else merge(given.text, tokens)
        count = len(reading.pieces)
        return TokenLabels(tuple(tokens), tuple(spans), reading.truncated, count, kind)


def _pieces(given: _Input, reading: Reading, outputs: Sequence[Outputs]) -> list[ScoredToken]:
    """The tokens of a text, each from the window that reads it best."""
    scores = [class_scores(found["logits"]) for found in outputs]
    columns = [(piece.offsets, piece.word_ids) for piece in reading.pieces]
    starts = given.starts
    pieces = []
    for window, at in best_places(reading):
        offsets, word_ids = columns[window]
        word = word_ids[at]
        shift = starts[word] if given.words and word is not None else 0  # offsets within the word
        start, end = offsets[at]
        pieces.append(ScoredToken(start + shift, end + shift, word, scores[window][at]))
    return pieces


def _every_word(
    given: _Input, groups: Sequence[Sequence[ScoredToken]], tokens: Sequence[TokenLabel], cut: bool
) -> list[TokenLabel]:
    """A label for each word: those that have no token, such as control characters, are outside."""
    found = {group[0].word: token for group, token in zip(groups, tokens, strict=True)}
    words = given.words or []
    last = max((word for word in found if word is not None), default=-1)
    count = last + 1 if cut else len(words)
    starts = given.starts
    found_all = []
    for at, word in enumerate(words[:count]):
        nothing = TokenLabel(word, OUTSIDE, 0.0, starts[at], starts[at] + len(word))
        found_all.append(found.get(at, nothing))
    return found_all


def _words(item: Any) -> list[str] | None:
    if not isinstance(item, Mapping) or "text" in item:
        return None
    words = item.get("tokens")
    if set(item) != {"tokens"} or not isinstance(words, list | tuple) or not words:
        raise InputError(f"expected a text or {{'tokens': [words]}}, got {item!r:.80}")
    for word in words:
        if not isinstance(word, str):
            raise InputError(f"expected a word, got {type(word).__name__}: {word!r:.60}")
    return list(words)
