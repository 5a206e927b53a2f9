"""Measures of predictions against references, as plain functions of lists and numbers."""

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from zoo.errors import DataError

__all__ = [
    "accuracy",
    "bits_per_byte",
    "character_error_rate",
    "exact_match",
    "f1_scores",
    "perplexity",
    "qa_exact_match",
    "qa_f1",
    "span_scores",
    "spans",
]

Span = tuple[str, int, int]


def accuracy(predictions: Sequence[object], references: Sequence[object]) -> float:
    """Returns the share of predictions that equal their reference."""
    _check_equally_many(predictions, references)
    return _mean(p == r for p, r in zip(predictions, references, strict=True))


def exact_match(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Returns the share of texts that equal their reference, but for white space at the ends.

    Both are compared in Unicode's composed form (NFC).
    """
    _check_equally_many(predictions, references)
    return accuracy([_plain(text) for text in predictions], [_plain(text) for text in references])


def character_error_rate(predictions: Sequence[str], references: Sequence[str]) -> float:
    """Returns the edit distance in characters over the length of all references."""
    _check_equally_many(predictions, references)
    pairs = [(_plain(p), _plain(r)) for p, r in zip(predictions, references, strict=True)]
    edits = sum(_edit_distance(p, r) for p, r in pairs)
    return edits / max(sum(len(reference) for _, reference in pairs), 1)


def f1_scores(predictions: Sequence[object], references: Sequence[object]) -> dict[str, float]:
    """Returns the F1 of single-label classes: "macro" over the classes that occur, and "micro".

    F1 of a class is 2 TP / (2 TP + FP + FN). Micro F1 sums the counts over classes first; with
    one label each it equals the accuracy.
    """
    _check_equally_many(predictions, references)
    right: Counter = Counter()
    predicted, expected = Counter(predictions), Counter(references)
    for prediction, reference in zip(predictions, references, strict=True):
        right[reference] += prediction == reference
    classes = sorted({*predicted, *expected}, key=str)
    each = [2 * right[name] / (predicted[name] + expected[name]) for name in classes]
    total = sum(predicted.values()) + sum(expected.values())
    return {
        "macro": sum(each) / len(each) if each else 0.0,
        "micro": 2 * sum(right.values()) / total if total else 0.0,
    }


def spans(tags: Sequence[str]) -> set[Span]:
    """Returns the spans (label, first, after last) that BIO, BIOES or BMES tags mark.

    B- begins a span; I-, M- and E- go on with one of the same label (and begin one where there is
    none, as conlleval reads them); E- also ends it; S- is a span of one. Anything else is outside.
    """
    found: set[Span] = set()
    label, start = None, 0
    for index, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        goes_on = prefix in ("I", "M", "E") and name == label
        if not goes_on:
            if label is not None:
                found.add((label, start, index))
            label, start = (name, index) if prefix in ("B", "I", "M", "E", "S") else (None, index)
        if prefix in ("E", "S"):
            found.add((name, start, index + 1))
            label = None
    return found


def span_scores(
    predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Returns precision, recall and F1 over whole spans (as CoNLL-2003), and token accuracy.

    Raises:
        DataError: Two sequences of tags are not equally long.
    """
    _check_equally_many(predictions, references)
    right = predicted = expected = same = tokens = 0
    for number, (ours, theirs) in enumerate(zip(predictions, references, strict=True)):
        if len(ours) != len(theirs):
            raise DataError(f"Example {number}: {len(ours)} tags predicted for {len(theirs)}.")
        found, true = spans(ours), spans(theirs)
        right += len(found & true)
        predicted += len(found)
        expected += len(true)
        same += sum(a == b for a, b in zip(ours, theirs, strict=True))
        tokens += len(theirs)
    precision = right / predicted if predicted else 0.0
    recall = right / expected if expected else 0.0
    both = precision + recall
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / both if both else 0.0,
        "token_accuracy": same / tokens if tokens else 0.0,
    }


def perplexity(negative_log_likelihood: float, tokens: int) -> float:
    """Returns exp of the mean negative log-likelihood (in nats) of a token."""
    return math.exp(min(negative_log_likelihood / tokens, 700.0)) if tokens else math.nan


def bits_per_byte(negative_log_likelihood: float, byte_count: int) -> float:
    """Returns the negative log-likelihood (in nats) of a text as bits per byte of its UTF-8 form.

    Unlike perplexity it does not depend on the tokenizer.
    """
    return negative_log_likelihood / math.log(2) / byte_count if byte_count else math.nan


def qa_exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Returns 1 when the prediction equals an answer as SQuAD compares them, else 0."""
    return _best(lambda answer: float(_squad(prediction) == _squad(answer)), answers)


def qa_f1(prediction: str, answers: Sequence[str]) -> float:
    """Returns the best F1 over words between the prediction and one of the answers (SQuAD)."""

    def overlap(answer: str) -> float:
        ours, theirs = _squad(prediction).split(), _squad(answer).split()
        if not ours or not theirs:
            return float(ours == theirs)
        common = sum((Counter(ours) & Counter(theirs)).values())
        return 2 * common / (len(ours) + len(theirs))

    return _best(overlap, answers)


def _best(score: Callable[[str], float], answers: Sequence[str]) -> float:
    return max(score(answer) for answer in (answers or [""]))


def _squad(text: str) -> str:
    """SQuAD's normal form: lower case, no ASCII punctuation, no English article, single spaces."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _edit_distance(first: str, second: str) -> int:
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values) if values else math.nan


def _check_equally_many(predictions: Sequence, references: Sequence) -> None:
    if len(predictions) != len(references):
        raise DataError(
            f"{len(predictions)} predictions for {len(references)} references: expected one each."
        )
