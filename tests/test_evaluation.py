"""Metrics against counts by hand, scikit-learn and definitions; `evaluate` by task and group."""

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score

from zoo.errors import ConfigError, DataError
from zoo.evaluation import METRICS, evaluate
from zoo.evaluation import metrics as measures


def test_f1_equals_scikit_learn():
    rng = np.random.default_rng(0)
    ours = rng.choice(["a", "b", "c", "d"], 200, p=[0.6, 0.2, 0.15, 0.05])
    theirs = rng.choice(["a", "b", "c", "e"], 200)
    found = measures.f1_scores(list(ours), list(theirs))
    for average in ("macro", "micro"):
        assert found[average] == pytest.approx(f1_score(theirs, ours, average=average))


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O", set()),
        ("B-X I-X O B-Y", {("X", 0, 2), ("Y", 3, 4)}),
        ("B-X B-X I-X", {("X", 0, 1), ("X", 1, 3)}),
        ("I-X I-Y", {("X", 0, 1), ("Y", 1, 2)}),
        ("B-X M-X E-X S-Y", {("X", 0, 3), ("Y", 3, 4)}),
        ("S-X S-X", {("X", 0, 1), ("X", 1, 2)}),
        ("B-X E-X E-X", {("X", 0, 2), ("X", 2, 3)}),
        ("B I E", {("", 0, 3)}),
        ("B-a-b I-a-b", {("a-b", 0, 2)}),
    ],
)
def test_spans(tags, expected):
    assert measures.spans(tags.split()) == expected


def test_span_scores():
    references = [["B-X", "I-X", "O", "B-Y"], ["O", "B-X"]]
    predictions = [["B-X", "I-X", "O", "B-X"], ["O", "B-X"]]
    scores = measures.span_scores(predictions, references)
    assert scores["precision"] == scores["recall"] == pytest.approx(2 / 3)
    assert scores["f1"] == pytest.approx(2 / 3)
    assert scores["token_accuracy"] == pytest.approx(5 / 6)
    with pytest.raises(DataError, match="Example 0: 1 tags"):
        measures.span_scores([["O"]], [["O", "O"]])


def test_language_model_measures():
    assert measures.perplexity(math.log(8) * 5, 5) == pytest.approx(8)
    assert measures.bits_per_byte(math.log(2) * 12, 4) == pytest.approx(3)
    assert measures.perplexity(1e9, 1) < math.inf
    assert math.isnan(measures.bits_per_byte(1.0, 0))


def test_exact_match_and_character_error_rate():
    assert measures.exact_match([" a b\n", "e\u0301", "x"], ["a b", "é", "y"]) == pytest.approx(
        2 / 3
    )
    assert measures.character_error_rate(["kitten"], ["sitting"]) == pytest.approx(3 / 7)
    assert measures.character_error_rate(["", "ab"], ["abc", "ab"]) == pytest.approx(3 / 5)


@pytest.mark.parametrize(
    ("prediction", "answers", "exact", "f1"),
    [
        ("The cat!", ["cat"], 1.0, 1.0),
        ("black cat", ["a cat", "dog"], 0.0, 2 / 3),
        ("", [], 1.0, 1.0),
        ("something", [], 0.0, 0.0),
        ("", ["cat"], 0.0, 0.0),
    ],
)
def test_question_answering_measures(prediction, answers, exact, f1):
    assert measures.qa_exact_match(prediction, answers) == exact
    assert measures.qa_f1(prediction, answers) == pytest.approx(f1)


CASES = {
    "text-classification": (["a", "b"], [{"label": "a", "k": 1}, {"label": "a", "k": 2}]),
    "token-classification": (
        [["B-X"], ["O"]],
        [{"tags": ["B-X"], "k": 1}, {"tags": ["B-X"], "k": 2}],
    ),
    "question-answering": (
        ["x", "y"],
        [{"answers": [{"text": "x"}], "k": 1}, {"answers": {"text": ["z"]}, "k": 2}],
    ),
    "text2text-generation": (["x", "y"], [{"target": "x", "k": 1}, {"target": "z", "k": 2}]),
    "text-generation": (
        [{"nll": 1.0, "tokens": 2, "correct": 1}, {"nll": 3.0, "tokens": 2, "correct": 0}],
        [{"text": "é", "k": 1}, {"text": "abcd", "k": 2}],
    ),
    "fill-mask": (
        [{"nll": 1.0, "tokens": 2, "correct": 1}, {"nll": 3.0, "tokens": 2, "correct": 0}],
        [{"text": "é", "k": 1}, {"text": "abcd", "k": 2}],
    ),
}


@pytest.mark.parametrize("task", METRICS)
def test_evaluate_by_group(task):
    predictions, examples = CASES[task]
    result = evaluate(task, predictions, examples, group="k")
    assert set(result) == {"count", "groups", *METRICS[task]}
    assert result["count"] == 2
    assert set(result["groups"]) == {"1", "2"}
    assert result["groups"]["1"] == evaluate(task, predictions[:1], examples[:1])
    one = METRICS[task][0]
    assert evaluate(task, predictions, examples, metrics=[one]) == {"count": 2, one: result[one]}


def test_language_model_pools_over_examples():
    result = evaluate("text-generation", *CASES["text-generation"])
    assert result["perplexity"] == pytest.approx(math.exp(4 / 4))
    assert result["bits_per_byte"] == pytest.approx(4 / math.log(2) / 6)
    assert result["accuracy"] == 0.25


def test_evaluate_errors():
    with pytest.raises(ConfigError, match="no metrics; did you mean 'text-generation'"):
        evaluate("text-generatio", [], [])
    with pytest.raises(ConfigError, match="did you mean 'accuracy'"):
        evaluate("text-classification", [], [], metrics=["acuracy"])
    with pytest.raises(DataError, match="1 predictions for 0 examples"):
        evaluate("text-classification", ["a"], [])
    with pytest.raises(DataError, match="no 'locale' to group by"):
        evaluate("text-classification", ["a"], [{"label": "a"}], group="locale")
    with pytest.raises(DataError, match="no 'label'"):
        evaluate("text-classification", ["a"], [{"text": "a"}])
