"""`evaluate`: the metrics of a task, whoever made the predictions, in all and by group."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from zoo.config import nearest
from zoo.errors import ConfigError, DataError
from zoo.evaluation import metrics as measures

__all__ = ["METRICS", "evaluate"]

Example = Mapping[str, Any]
Scores = dict[str, float]

METRICS = {
    "text-classification": ("accuracy", "macro_f1", "micro_f1"),
    "token-classification": ("f1", "precision", "recall", "token_accuracy"),
    "question-answering": ("exact_match", "f1"),
    "fill-mask": ("accuracy", "perplexity", "loss"),
    "text-generation": ("perplexity", "bits_per_byte", "accuracy", "loss"),
    "text2text-generation": ("exact_match", "character_error_rate"),
}
"""The metrics of each task."""


def evaluate(
    task: str,
    predictions: Sequence[Any],
    examples: Sequence[Example],
    group: str | None = None,
    metrics: Iterable[str] | None = None,
) -> dict[str, Any]:
    """Compares predictions with examples.

    Args:
        task: The task's name; it decides what a prediction is.
            text-classification: a label. token-classification: a list of tags, one per token of
            the example. question-answering: the answer's text, "" for none. text2text-generation:
            a text. text-generation and fill-mask: {"nll": negative log-likelihood in nats,
            "tokens": how many were predicted[, "correct": how many rightly]}.
        predictions: One for each example.
        examples: As in `zoo.data`, with their answers.
        group: A key of the examples; the metrics are also given for each of its values.
        metrics: The names to keep; all of `METRICS[task]` by default.

    Returns:
        {"count": examples, metric: value, ...}, with `group` also {"groups": {value: {...}}}.

    Raises:
        ConfigError: The task or a metric is not known.
        DataError: Predictions and examples do not go together.
    """
    if task not in METRICS:
        raise ConfigError(f"Task {task!r} has no metrics; {nearest(task, METRICS)}")
    names = list(METRICS[task] if metrics is None else metrics)
    for name in names:
        if name not in METRICS[task]:
            raise ConfigError(f"Task {task} has no metric {name!r}; {nearest(name, METRICS[task])}")
    if len(predictions) != len(examples):
        raise DataError(f"{len(predictions)} predictions for {len(examples)} examples.")
    result = _measure(task, predictions, examples, names)
    if group is not None:
        members: dict[str, list[int]] = {}
        for index, example in enumerate(examples):
            if group not in example:
                raise DataError(f"Example {index} has no {group!r} to group by.")
            members.setdefault(str(example[group]), []).append(index)
        result["groups"] = {
            name: _measure(
                task,
                [predictions[i] for i in members[name]],
                [examples[i] for i in members[name]],
                names,
            )
            for name in sorted(members)
        }
    return result


def _measure(
    task: str, predictions: Sequence[Any], examples: Sequence[Example], names: list[str]
) -> dict[str, Any]:
    try:
        scores = _SCORERS[task](predictions, examples)
    except KeyError as error:
        raise DataError(f"Task {task}: an example or prediction has no {error}.") from None
    return {"count": len(examples), **{name: scores[name] for name in names if name in scores}}


def _text_classification(predictions: Sequence[Any], examples: Sequence[Example]) -> Scores:
    ours, theirs = [str(p) for p in predictions], [str(example["label"]) for example in examples]
    f1 = measures.f1_scores(ours, theirs)
    return {
        "accuracy": measures.accuracy(ours, theirs),
        "macro_f1": f1["macro"],
        "micro_f1": f1["micro"],
    }


def _token_classification(predictions: Sequence[Any], examples: Sequence[Example]) -> Scores:
    return measures.span_scores(predictions, [example["tags"] for example in examples])


def _question_answering(predictions: Sequence[Any], examples: Sequence[Example]) -> Scores:
    pairs = [(p, answer_texts(e)) for p, e in zip(predictions, examples, strict=True)]
    count = max(len(pairs), 1)
    return {
        "exact_match": sum(measures.qa_exact_match(*pair) for pair in pairs) / count,
        "f1": sum(measures.qa_f1(*pair) for pair in pairs) / count,
    }


def answer_texts(example: Example) -> list[str]:
    """Returns the texts of an example's answers, in either form that SQuAD data come in."""
    answers = example["answers"] or []
    if isinstance(answers, Mapping):
        texts = answers.get("text", [])
        return [texts] if isinstance(texts, str) else list(texts)
    return [answer if isinstance(answer, str) else answer["text"] for answer in answers]


def _text2text(predictions: Sequence[Any], examples: Sequence[Example]) -> Scores:
    targets = [example["target"] for example in examples]
    return {
        "exact_match": measures.exact_match(predictions, targets),
        "character_error_rate": measures.character_error_rate(predictions, targets),
    }


def _language_model(predictions: Sequence[Any], examples: Sequence[Example]) -> Scores:
    nll = sum(prediction["nll"] for prediction in predictions)
    tokens = sum(prediction["tokens"] for prediction in predictions)
    scores = {
        "loss": nll / max(tokens, 1),
        "perplexity": measures.perplexity(nll, tokens),
        "bits_per_byte": measures.bits_per_byte(
            nll, sum(len(example["text"].encode("utf-8")) for example in examples)
        ),
    }
    if all("correct" in prediction for prediction in predictions):
        scores["accuracy"] = sum(p["correct"] for p in predictions) / max(tokens, 1)
    return scores


_SCORERS: dict[str, Callable[[Sequence[Any], Sequence[Example]], Scores]] = {
    "text-classification": _text_classification,
    "token-classification": _token_classification,
    "question-answering": _question_answering,
    "fill-mask": _language_model,
    "text-generation": _language_model,
    "text2text-generation": _text2text,
}
