"""Predictions with Keras models: one per example, whatever the batch, and scored once per token."""

import keras
import numpy as np
import pytest
from tolerances import close

import zoo
from zoo.evaluation import METRICS, evaluate, predict_examples
from zoo.evaluation.prediction import PredictionSettings, _best_span, _overlapping
from zoo.text import Tokenizer

TEXTS = ["a bad cab", "dad", "feed a cab a bad egg", "beef", "a", "gab a cafe face"]
TAGGED = [["a", "bad", "cab"], ["dad"], ["feed", "a", "cab", "a", "bad", "egg"], ["beef"]]
EXAMPLES = {
    "text-classification": [{"text": text, "label": "y"} for text in TEXTS],
    "token-classification": [{"tokens": words, "tags": ["O"] * len(words)} for words in TAGGED],
    "question-answering": [
        {"question": "bad?", "context": text, "answers": {"text": [text[:2]], "answer_start": [0]}}
        for text in TEXTS
    ],
    "fill-mask": [{"text": text} for text in TEXTS],
    "text-generation": [{"text": text} for text in TEXTS],
    "text2text-generation": [{"source": text, "target": text[::-1]} for text in TEXTS],
}
TEMPLATES = {"text-generation": "decoder", "text2text-generation": "seq2seq"}
CONFIGS = {
    "decoder": zoo.DecoderConfig,
    "seq2seq": zoo.EncoderDecoderConfig,
    "encoder": zoo.EncoderConfig,
}
LABELS = {"text-classification": ["x", "y", "z"], "token-classification": ["B-A", "I-A", "O"]}


def parts(task: str) -> tuple[zoo.TaskModel, Tokenizer]:
    template = TEMPLATES.get(task, "encoder")
    tokenizer = Tokenizer.train("char", [*TEXTS, "?"], template=template)
    keras.utils.set_random_seed(2)
    config = CONFIGS[template](
        vocab_size=tokenizer.vocab_size,
        hidden_dim=16,
        num_layers=1,
        num_heads=2,
        max_length=48,
        initializer_range=0.3,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return zoo.TaskModel(config, task=task, labels=LABELS.get(task)), tokenizer


@pytest.mark.parametrize("task", METRICS)
def test_predictions_do_not_depend_on_the_batch(task):
    model, tokenizer = parts(task)
    examples = EXAMPLES[task]
    generation = {"max_new_tokens": 5}
    found = [
        predict_examples(model, tokenizer, examples, PredictionSettings(40, size, generation))
        for size in (1, 4, 64)
    ]
    assert all(len(predictions) == len(examples) for predictions in found)
    if task == "fill-mask":  # which tokens are hidden follows from the batch
        assert all(prediction["tokens"] > 0 for prediction in found[0][:1])
    elif task == "text-generation":
        for other in found[1:]:
            assert [p["tokens"] for p in other] == [p["tokens"] for p in found[0]]
            nll = [[p["nll"] for p in predictions] for predictions in (other, found[0])]
            close(*nll, "batched_score")
    else:
        assert found[0] == found[1] == found[2]
    scores = evaluate(task, found[-1], examples)
    assert set(scores) == {"count", *METRICS[task]}


def test_text_is_scored_as_a_full_pass_scores_it():
    model, tokenizer = parts("text-generation")
    settings = PredictionSettings(max_length=40)
    for text in TEXTS[:3]:
        (found,) = predict_examples(model, tokenizer, [{"text": text}], settings)
        end = tokenizer.eos_token_id
        ids = np.array([[end, *tokenizer.encode(text).ids, end]])
        inputs = {"input_ids": ids[:, :-1], "attention_mask": np.ones_like(ids[:, :-1])}
        logits = keras.ops.convert_to_numpy(model(inputs)["logits"])[0].astype("float64")
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        close(found["nll"], -log_p[np.arange(len(log_p)), ids[0, 1:]].sum(), "batched_score")
        assert found["tokens"] == len(text) + 1


@pytest.mark.parametrize("length", [4, 7, 8, 100])
@pytest.mark.parametrize("tokens", [2, 5, 8, 9, 23])
def test_windows_count_every_token_once(length, tokens):
    stream = list(range(tokens))
    counted = []
    for inputs, labels in _overlapping(stream, length):
        assert len(inputs) == len(labels) <= length
        for position, label in enumerate(labels):
            if label != -100:
                assert label == inputs[position] + 1  # predicted from the token before it
                counted.append((label, position))
    assert [label for label, _ in counted] == stream[1:]
    later = [position for label, position in counted if label > length]
    assert all(position >= length // 2 - 1 for position in later)  # with context


def test_tokens_past_the_limit_are_outside():
    model, tokenizer = parts("token-classification")
    example = {"tokens": ["bad"] * 30, "tags": ["O"] * 30}
    (tags,) = predict_examples(model, tokenizer, [example], PredictionSettings(16))
    assert len(tags) == 30
    assert set(tags[6:]) == {"O"}


def test_best_span_lies_in_the_context_and_in_order():
    class Window:
        offsets = (None, None, (0, 2), (3, 5), (6, 8), None)

    start = np.array([9.0, 9.0, 0.0, 1.0, 5.0, 9.0])
    end = np.array([9.0, 9.0, 5.0, 2.0, 0.0, 9.0])
    score, text = _best_span(Window, start, end, "aa bb cc")
    assert (score, text) == (5.0, "aa")  # (5, 5) would end before it begins
