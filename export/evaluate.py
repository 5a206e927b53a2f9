"""Measures a bundle on examples: predictions through `serve`, metrics from `zoo`."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from export.errors import ExportError
from serve.bundle.manifest import Manifest
from serve.decoding.generator import Generator
from serve.pipelines import load
from serve.runtime.session import Session, SessionOptions
from zoo.data.batching import batches
from zoo.evaluation import evaluate
from zoo.evaluation.prediction import scoring_windows
from zoo.text import Tokenizer

Example = dict[str, Any]


def evaluate_bundle(
    manifest: Manifest,
    examples: Sequence[Example],
    *,
    group: str | None = None,
    batch_size: int = 64,
    options: SessionOptions | None = None,
) -> dict[str, Any]:
    """The metrics of a bundle's task on `examples`, in all and by `group`.

    Args:
        manifest: Of a loaded bundle.
        examples: As in `zoo.data`, with their answers.
        group: A key of the examples; metrics are also given for each of its values.
        batch_size: Examples at once.
        options: How to run the graphs.

    Raises:
        ExportError: The task makes no predictions that could be measured.
    """
    if manifest.task not in _PREDICTORS:
        raise ExportError(
            f"task {manifest.task!r} makes no predictions that could be measured; "
            f"those of {sorted(_PREDICTORS)} do"
        )
    needed = _KEYS[manifest.task]
    for number, example in enumerate(examples, 1):
        missing = [key for key in needed if key not in example]
        if missing:
            raise ExportError(
                f"example {number} has no {missing[0]!r}: {manifest.task} needs the keys "
                f"{list(needed)}, found {sorted(example)}"
            )
    predictions: list[Any] = []
    predict = _PREDICTORS[manifest.task](manifest, batch_size, options)
    for start in range(0, len(examples), 16 * batch_size):
        predictions += predict(examples[start : start + 16 * batch_size])
    return evaluate(manifest.task, predictions, examples, group)


Predictor = Callable[[Sequence[Example]], list[Any]]


def _classes(manifest: Manifest, batch_size: int, options: SessionOptions | None) -> Predictor:
    pipeline: Any = load(manifest.folder, options=options)
    keys = ("text", "pair")

    def predict(examples: Sequence[Example]) -> list[str]:
        inputs = [
            {key: example[key] for key in keys if key in example}
            if "pair" in example
            else example["text"]
            for example in examples
        ]
        return [result.label for result in pipeline(inputs, long="cut")]  # as in `zoo.evaluation`

    return predict


def _tags(manifest: Manifest, batch_size: int, options: SessionOptions | None) -> Predictor:
    pipeline: Any = load(manifest.folder, options=options)
    labels = manifest.labels or ["O"]
    outside = "O" if "O" in labels else labels[0]

    def predict(examples: Sequence[Example]) -> list[list[str]]:
        results = pipeline(
            [{"tokens": list(example["tokens"])} for example in examples], long="cut"
        )
        rows = []
        for example, result in zip(examples, results, strict=True):
            tags = [token.label for token in result.tokens]
            rows.append(tags + [outside] * (len(example["tokens"]) - len(tags)))
        return rows

    return predict


def _answers(manifest: Manifest, batch_size: int, options: SessionOptions | None) -> Predictor:
    pipeline: Any = load(manifest.folder, options=options)

    def predict(examples: Sequence[Example]) -> list[str]:
        keys = ("question", "context")
        results = pipeline([{key: example[key] for key in keys} for example in examples])
        return [result.text if result.score > result.no_answer_score else "" for result in results]

    return predict


def _texts(manifest: Manifest, batch_size: int, options: SessionOptions | None) -> Predictor:
    pipeline: Any = load(manifest.folder, options=options)
    return lambda examples: [
        result.text for result in pipeline([example["source"] for example in examples])
    ]


def _likelihoods(manifest: Manifest, batch_size: int, options: SessionOptions | None) -> Predictor:
    """Scores texts in the windows of `zoo.evaluation`, so that figures may be compared."""
    generator = Generator(manifest, options)
    generator.reader = generator.decoder  # where prompts have a graph of their own: the one that
    tokenizer = Tokenizer.load(manifest.folder)  # writes, as it is rounded more

    def predict(examples: Sequence[Example]) -> list[dict[str, float]]:
        texts = [example["text"] for example in examples]
        scores = _no_scores(len(texts))
        windows = scoring_windows(texts, tokenizer, manifest.cache.max_length)  # type: ignore[union-attr]
        for chunk in _chunks(windows, batch_size):
            prompts = [ids for _, ids, _ in chunk]
            _, logits = generator.start(prompts, prompts, 0, every=True)
            for row, (number, ids, labels) in enumerate(chunk):
                _add(scores[number], logits[row, : len(ids)], np.array(labels))
        return scores

    return predict


def _masks(manifest: Manifest, batch_size: int, options: SessionOptions | None) -> Predictor:
    """Hides the tokens that `zoo.evaluation` hides."""
    session = Session(manifest.path(manifest.graphs["model"].file), options)
    tokenizer = Tokenizer.load(manifest.folder)

    def predict(examples: Sequence[Example]) -> list[dict[str, float]]:
        scores = _no_scores(len(examples))
        length = manifest.tokenizer.max_length if manifest.tokenizer else None
        data = batches(
            list(examples), tokenizer, manifest.task, batch_size=batch_size, max_length=length
        )
        rows = iter(scores)
        for x, y in data:
            logits = session.run({name: value.numpy() for name, value in x.items()})["logits"]
            for values, labels in zip(logits, y.numpy(), strict=True):
                _add(next(rows), values, labels)
        return scores

    return predict


def _no_scores(count: int) -> list[dict[str, float]]:
    return [{"nll": 0.0, "tokens": 0, "correct": 0} for _ in range(count)]


def _add(score: dict[str, float], logits: np.ndarray, labels: np.ndarray) -> None:
    """Adds the negative log-likelihood of the labels that count."""
    counted = labels >= 0
    logits, labels = logits[counted].astype(np.float64), labels[counted]
    top = logits.max(axis=-1, initial=-np.inf)
    normalizer = top + np.log(np.exp(logits - top[:, None]).sum(axis=-1))
    score["nll"] += float((normalizer - logits[np.arange(len(labels)), labels]).sum())
    score["tokens"] += len(labels)
    score["correct"] += int((logits.argmax(axis=-1) == labels).sum()) if len(labels) else 0


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


_KEYS = {
    "text-classification": ("text",),
    "token-classification": ("tokens",),
    "question-answering": ("question", "context"),
    "fill-mask": ("text",),
    "text-generation": ("text",),
    "text2text-generation": ("source",),
}
_PREDICTORS: dict[str, Callable[[Manifest, int, SessionOptions | None], Predictor]] = {
    "text-classification": _classes,
    "token-classification": _tags,
    "question-answering": _answers,
    "fill-mask": _masks,
    "text-generation": _likelihoods,
    "text2text-generation": _texts,
}
