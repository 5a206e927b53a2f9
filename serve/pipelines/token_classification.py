"""Labels of the tokens of a text, and the spans they make up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Encoding

from serve.errors import InputError
from serve.pipelines.base import check_choice, for_each
from serve.pipelines.encoder import EncoderPipeline, EncoderSettings, class_scores, label_names
from serve.pipelines.results import Span, TokenLabel, TokenLabels
from serve.text.windows import Piece


@dataclass(frozen=True)
class TagSettings(EncoderSettings):
    """Settings of token-classification."""

    unit: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("unit", self.unit, ("auto", "token", "word"))


class TokenClassifier(EncoderPipeline):
    """Labels of a text's tokens, and the spans they make up (task token-classification).

    An input is a text, or `{"tokens": [...]}` for a text that is split into words already. The
    setting `unit` chooses what is labelled: every "token", or every "word" by its first token;
    "auto" takes words where the input comes as words or the labels are of the BIO kind.
    """

    settings_type = TagSettings
    long_choices = ("cut", "error")
    by_token = frozenset({"logits"})

    def _answer(self, items: Sequence[Any], settings: TagSettings) -> list[TokenLabels]:
        unit = settings.unit
        split = for_each(items, _words)
        texts = [
            " ".join(words) if words is not None else self._parts(item)[0]
            for item, words in zip(items, split, strict=True)
        ]
        encodings: list[Encoding] = [
            self.tokenizer.encode([text if words is None else words], words=words is not None)[0]
            for text, words in zip(texts, split, strict=True)
        ]
        readings = self._fit(encodings, settings)
        results = []
        for row, [outputs] in enumerate(self._run_all(readings)):
            words = split[row]
            by_word = words is not None or unit == "word" or (unit == "auto" and self._bio())
            tokens = self._label(
                texts[row],
                words,
                readings[row].pieces[0],
                outputs["logits"],
                by_word and unit != "token",
            )
            cut = readings[row].truncated
            results.append(TokenLabels(tuple(tokens), tuple(merge(texts[row], tokens)), cut))
        return results

    def _bio(self) -> bool:
        prefixes = {label[:2] for label in self.manifest.labels or () if label[1:2] in ("-", "_")}
        return bool(prefixes) and all(prefix[0] in "BI" for prefix in prefixes)

    def _label(
        self,
        text: str,
        words: list[str] | None,
        encoding: Piece,
        logits: np.ndarray,
        by_word: bool,
    ) -> list[TokenLabel]:
        scores = class_scores(logits)
        labels = label_names(self.manifest, scores.shape[-1])
        best = scores.argmax(-1).tolist()
        starts = np.cumsum([0, *(len(word) + 1 for word in words)]).tolist() if words else None
        found: list[TokenLabel] = []
        last_word = None
        for at, (first, end) in enumerate(encoding.offsets):
            word = encoding.word_ids[at]
            if encoding.special_tokens_mask[at]:
                continue
            if starts is not None and word is not None:  # offsets count within the word
                first, end = first + starts[word], end + starts[word]
            if by_word and word is not None and word == last_word:
                before = found[-1]
                found[-1] = TokenLabel(
                    text[before.start : end], before.label, before.score, before.start, end
                )
                continue
            last_word = word
            score = float(scores[at, best[at]])
            found.append(TokenLabel(text[first:end], labels[best[at]], score, first, end))
        return found


def merge(text: str, tokens: Sequence[TokenLabel]) -> list[Span]:
    """Merge neighbours of one label: BIO, BMES (B- begins, M- and I- continue, E- ends, S- alone).

    A label without such a prefix continues the span before it if that has the same label; "O" is
    no span. A continuation without a beginning begins one: models err, and a span is worth more.
    """
    spans: list[list[TokenLabel]] = []
    names: list[str] = []
    open_name: str | None = None
    for token in tokens:
        prefix, name = _prefix(token.label)
        if token.label == "O":
            open_name = None
            continue
        if open_name == name and prefix not in ("B", "S"):
            spans[-1].append(token)
        else:
            spans.append([token])
            names.append(name)
        open_name = None if prefix in ("E", "S") else name
    return [
        Span(
            name,
            text[span[0].start : span[-1].end],
            float(np.mean([token.score for token in span])),
            span[0].start,
            span[-1].end,
        )
        for name, span in zip(names, spans, strict=True)
    ]


def _prefix(label: str) -> tuple[str, str]:
    if len(label) > 2 and label[1] in "-_" and label[0] in "BIMES":
        return label[0], label[2:]
    if label in ("B", "I", "M", "E", "S"):
        return label, "word"  # segmentation: the labels say only where words begin and end
    return "", label


def _words(item: Any) -> list[str] | None:
    if not isinstance(item, Mapping) or "tokens" not in item:
        return None
    words = item["tokens"]
    if set(item) != {"tokens"} or not isinstance(words, list | tuple) or not words:
        raise InputError(f"expected a text or {{'tokens': [words]}}, got {item!r:.80}")
    for word in words:
        if not isinstance(word, str):
            raise InputError(f"expected a word, got {type(word).__name__}: {word!r:.60}")
    return list(words)
