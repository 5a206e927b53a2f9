"""Predictions with a Keras model, in the form that `evaluate` takes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from zoo.data.alignment import align_tags, question_windows
from zoo.data.batching import batches
from zoo.errors import ConfigError
from zoo.evaluation.evaluate import evaluate
from zoo.graph import as_graph
from zoo.text import join_words
from zoo.text.tokenizer import pad_rows

__all__ = ["PredictionSettings", "evaluate_run", "predict_examples", "predict_run"]

Example = Mapping[str, Any]
_ANSWERS = ("label", "tags", "answers", "target")
_LONGEST_ANSWER = 30


@dataclass(frozen=True)
class PredictionSettings:
    """How predictions are made.

    Args:
        max_length: Longest input in tokens.
        batch_size: Examples at once.
        generation: Arguments of `model.generate`.
    """

    max_length: int
    batch_size: int = 64
    generation: dict[str, Any] = field(default_factory=dict)


def evaluate_run(run: Any, examples: Sequence[Example]) -> dict[str, Any]:
    """Measures a run on examples, with the metrics and the group of its recipe."""
    recipe = run.recipe
    predictions = predict_run(run, examples)
    return evaluate(
        recipe.task, predictions, examples, recipe.evaluation.group, recipe.evaluation.metrics
    )


def predict_run(run: Any, examples: Sequence[Example]) -> list[Any]:
    """Predicts examples with the best weights of a run (`zoo.Run`)."""
    from zoo.config import to_mapping

    evaluation = run.recipe.evaluation
    settings = PredictionSettings(
        run.recipe.training.max_length, evaluation.batch_size, to_mapping(evaluation.generation)
    )
    return predict_examples(run.model, run.tokenizer, examples, settings)


def predict_examples(
    model: Any, tokenizer: Any, examples: Sequence[Example], settings: PredictionSettings
) -> list[Any]:
    """Predicts examples with a `zoo.TaskModel`.

    Returns:
        One prediction per example, as `zoo.evaluation.evaluate` describes them.
    """
    if model.task not in _PREDICTORS:
        raise ConfigError(f"Task {model.task!r} makes no predictions that could be measured.")
    if not examples:
        return []
    return _PREDICTORS[model.task](model, tokenizer, list(examples), settings)


def _forward(model: Any) -> Callable[[Any], dict[str, Any]]:
    return as_graph(lambda x: model(x, training=False))


def _by_length(texts: Sequence[str]) -> list[int]:
    """Returns positions from short to long, so that few tokens of a batch are padding."""
    return sorted(range(len(texts)), key=lambda index: len(texts[index]))


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _logits(
    model: Any, tokenizer: Any, examples: list[Example], settings: PredictionSettings
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (position, logits of one example), in batches of like length."""
    blank = [
        {key: value for key, value in example.items() if key not in _ANSWERS}
        for example in examples
    ]
    forward = _forward(model)
    sizes = [str(example.get("text", "")) + str(example.get("pair", "")) for example in blank]
    if model.task == "token-classification":
        sizes = [" ".join(example["tokens"]) for example in blank]
    order = _by_length(sizes)
    data = batches(
        [blank[index] for index in order],
        tokenizer,
        model.task,
        batch_size=settings.batch_size,
        labels=model.labels,
        max_length=settings.max_length,
    )
    places = iter(order)
    for x in data:
        for row in keras.ops.convert_to_numpy(forward(x)["logits"]):
            yield next(places), row


def _text_classification(
    model: Any, tokenizer: Any, examples: list[Example], settings: PredictionSettings
) -> list[str]:
    predictions = [""] * len(examples)
    for index, logits in _logits(model, tokenizer, examples, settings):
        predictions[index] = model.labels[int(logits.argmax())]
    return predictions


def _token_classification(
    model: Any, tokenizer: Any, examples: list[Example], settings: PredictionSettings
) -> list[list[str]]:
    """Tags each token by its first piece; tokens past `max_length` are outside."""
    outside = "O" if "O" in model.labels else model.labels[0]
    joined = [join_words(example["tokens"]) for example in examples]
    encoded = tokenizer.encode_raw(
        [text for text, _ in joined], max_length=settings.max_length, offsets=True
    )
    predictions = [[outside] * len(example["tokens"]) for example in examples]
    for index, logits in _logits(model, tokenizer, examples, settings):
        words = joined[index][1]
        places = align_tags(encoded[index].offsets, words, range(len(words)))
        best = logits.argmax(axis=-1)
        for position, word in enumerate(places):
            if word >= 0:
                predictions[index][word] = model.labels[int(best[position])]
    return predictions


def _question_answering(
    model: Any, tokenizer: Any, examples: list[Example], settings: PredictionSettings
) -> list[str]:
    """Takes the span with the highest sum of logits in any window; "" where position 0 beats it."""
    blank = [{**example, "answers": []} for example in examples]
    windows = question_windows(blank, tokenizer, settings.max_length)
    windows.sort(key=lambda window: len(window.ids))
    spans: dict[int, tuple[float, str]] = {}
    nothing: dict[int, float] = {}
    forward = _forward(model)
    for chunk in _chunks(windows, settings.batch_size):
        outputs = forward(_window_inputs(chunk, tokenizer))
        starts, ends = (
            keras.ops.convert_to_numpy(outputs[name]) for name in ("start_logits", "end_logits")
        )
        for window, start, end in zip(chunk, starts, ends, strict=True):
            number = window.example
            none = float(start[0] + end[0])
            nothing[number] = min(none, nothing.get(number, none))
            score, text = _best_span(window, start, end, examples[number]["context"])
            if score > spans.get(number, (-np.inf, ""))[0]:
                spans[number] = score, text
    return [
        spans[number][1] if number in spans and spans[number][0] > nothing[number] else ""
        for number in range(len(examples))
    ]


def _window_inputs(windows: Sequence[Any], tokenizer: Any) -> dict[str, np.ndarray]:
    width = -(-max(len(window.ids) for window in windows) // 8) * 8
    inputs = {
        "input_ids": pad_rows(
            [window.ids for window in windows], width, tokenizer.pad_token_id or 0
        ),
        "attention_mask": pad_rows([[1] * len(window.ids) for window in windows], width, 0),
    }
    if tokenizer.uses_type_ids:
        inputs["token_type_ids"] = pad_rows([window.type_ids for window in windows], width, 0)
    return inputs


def _best_span(window: Any, start: np.ndarray, end: np.ndarray, context: str) -> tuple[float, str]:
    places = [i for i, offset in enumerate(window.offsets) if offset and offset[1] > offset[0]]
    if not places:
        return -np.inf, ""
    index = np.array(places)
    scores = start[index][:, None] + end[index][None, :]
    steps = np.arange(len(index))
    length = steps[None, :] - steps[:, None]
    scores = np.where((length >= 0) & (length < _LONGEST_ANSWER), scores, -np.inf)
    first, last = np.unravel_index(int(scores.argmax()), scores.shape)
    begin, stop = window.offsets[places[first]][0], window.offsets[places[last]][1]
    return float(scores[first, last]), context[begin:stop]


def _text2text(
    model: Any, tokenizer: Any, examples: list[Example], settings: PredictionSettings
) -> list[str]:
    sources = [example["source"] for example in examples]
    predictions = [""] * len(examples)
    # The first token of the decoder is its start, which takes one place.
    room = model.config.max_target_length - 1
    generation = dict(settings.generation)
    generation["max_new_tokens"] = min(generation.get("max_new_tokens", room), room)
    for chunk in _chunks(_by_length(sources), settings.batch_size):
        texts = [sources[index] for index in chunk]
        x = tokenizer(texts, max_length=settings.max_length, pad_to_multiple_of=8)
        ids = model.generate(x["input_ids"], x["attention_mask"], **generation)
        for index, text in zip(chunk, tokenizer.decode_batch(ids), strict=True):
            predictions[index] = text
    return predictions


def _text_generation(
    model: Any, tokenizer: Any, examples: list[Example], settings: PredictionSettings
) -> list[dict[str, float]]:
    """Scores each text alone, after an end token, in windows that overlap by half.

    Each token is predicted once, and the end of the text as well.
    """
    windows = scoring_windows(
        [example["text"] for example in examples], tokenizer, settings.max_length
    )
    scores = [{"nll": 0.0, "tokens": 0, "correct": 0} for _ in examples]
    forward = as_graph(lambda x: _scores(model(x, training=False)["logits"], x["labels"]))
    for chunk in _chunks(windows, settings.batch_size):
        width = -(-max(len(ids) for _, ids, _ in chunk) // 8) * 8
        x = {
            "input_ids": pad_rows([ids for _, ids, _ in chunk], width, tokenizer.pad_token_id or 0),
            "attention_mask": pad_rows([[1] * len(ids) for _, ids, _ in chunk], width, 0),
            "labels": pad_rows([labels for _, _, labels in chunk], width, -100),
        }
        _add_scores(scores, [number for number, _, _ in chunk], forward(x), x["labels"])
    return scores


def scoring_windows(
    texts: Sequence[str], tokenizer: Any, length: int
) -> list[tuple[int, list[int], list[int]]]:
    """Returns (number of the text, inputs, labels) of windows that predict each token once.

    Windows overlap by half; the shortest come first.
    """
    end = tokenizer.eos_token_id
    windows = []
    for number, encoding in enumerate(tokenizer.encode_raw(texts)):
        ids = list(encoding.ids)
        stream = ids if end is None else [end, *ids, *([end] if ids[-1:] != [end] else [])]
        windows += [(number, *window) for window in _overlapping(stream, length)]
    windows.sort(key=lambda window: len(window[1]))
    return windows


def _overlapping(stream: list[int], length: int) -> Iterator[tuple[list[int], list[int]]]:
    """Yields (inputs, labels) of a stream; what two windows share is counted in the first."""
    inputs, labels = stream[:-1], stream[1:]
    step = max(length // 2, 1)
    done = 0
    while done < len(inputs):
        first = max(0, min(done - (length - step), len(inputs) - length)) if done else 0
        last = min(first + length, len(inputs))
        yield inputs[first:last], [-100] * (done - first) + labels[done:last]
        done = last


def _fill_mask(
    model: Any, tokenizer: Any, examples: list[Example], settings: PredictionSettings
) -> list[dict[str, float]]:
    """Hides the same tokens each time: they follow from the order of the examples."""
    scores = [{"nll": 0.0, "tokens": 0, "correct": 0} for _ in examples]
    forward = as_graph(lambda x, y: _scores(model(x, training=False)["logits"], y))
    data = batches(
        examples,
        tokenizer,
        model.task,
        batch_size=settings.batch_size,
        max_length=settings.max_length,
    )
    place = 0
    for x, y in data:
        labels = keras.ops.convert_to_numpy(y)
        _add_scores(scores, range(place, place + len(labels)), forward(x, y), labels)
        place += len(labels)
    return scores


def _scores(logits: Any, labels: Any) -> tuple[Any, Any]:
    """Returns the negative log-likelihood and the rightness of each label that counts."""
    counted = keras.ops.not_equal(labels, -100)
    known = keras.ops.where(counted, labels, 0)
    losses = keras.ops.sparse_categorical_crossentropy(known, logits, from_logits=True)
    right = keras.ops.equal(keras.ops.cast(keras.ops.argmax(logits, axis=-1), labels.dtype), labels)
    return keras.ops.where(counted, losses, 0.0), keras.ops.logical_and(right, counted)


def _add_scores(
    scores: list[dict[str, float]], numbers: Sequence[int], found: Any, labels: np.ndarray
) -> None:
    losses, right = (keras.ops.convert_to_numpy(values) for values in found)
    for row, number in enumerate(numbers):
        scores[number]["nll"] += float(losses[row].sum(dtype="float64"))
        scores[number]["tokens"] += int((labels[row] != -100).sum())
        scores[number]["correct"] += int(right[row].sum())


_PREDICTORS: dict[str, Callable[..., list[Any]]] = {
    "text-classification": _text_classification,
    "token-classification": _token_classification,
    "question-answering": _question_answering,
    "fill-mask": _fill_mask,
    "text-generation": _text_generation,
    "text2text-generation": _text2text,
}
