"""The baselines: probabilities that sum to one, known figures, and errors that help."""

import itertools

import pytest

from zoo.data import sources
from zoo.errors import DataError
from zoo.evaluation.baselines import CharNgramClassifier, NgramLanguageModel, baseline

TEXTS = ["the cat sat on the mat", "the rat sat on the cat", "a cat is no rat, a mat is no cat"]


@pytest.mark.parametrize("order", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("context", ["", "t", "the ca", "zzzzzzzz", "naïve"])
def test_probabilities_of_all_bytes_sum_to_one(order, context):
    """Over ASCII and, for the bytes that no text starts with, over what the others leave."""
    model = NgramLanguageModel(order).fit(TEXTS)
    ascii_bytes = [2 ** model.log2_probabilities([context + chr(b)])[-1] for b in range(128)]
    lead = [2 ** model.log2_probabilities([context + chr(0x80 << b)])[-2] for b in range(4)]
    assert len(set(lead)) == 1  # unseen bytes are all alike
    assert sum(ascii_bytes) + 128 * lead[0] == pytest.approx(1, abs=1e-9)


def test_unigrams_are_discounted_counts():
    model = NgramLanguageModel(1).fit(["aaaabbc"])
    y = 1 / 3
    discounts = [1 - 2 * y, 2 - 3 * y, 3 - 4 * y]  # of counts 1, 2, 3+; each occurs once or not
    reserved = sum(discounts) / 7
    expected = {
        "a": (4 - discounts[2]) / 7 + reserved / 256,
        "b": (2 - discounts[1]) / 7 + reserved / 256,
        "c": (1 - discounts[0]) / 7 + reserved / 256,
        "z": reserved / 256,
    }
    for byte, probability in expected.items():
        assert 2 ** model.log2_probabilities([byte])[0] == pytest.approx(probability)


def test_lower_orders_count_contexts():
    """Francisco is frequent but follows San only: elsewhere it is less likely than a rarer word."""
    model = NgramLanguageModel(2).fit(["xF" * 50 + "aGbGcGdG"])
    after_new_context = 2 ** model.log2_probabilities(["zF", "zG"])
    assert after_new_context[3] > 2 * after_new_context[1]


def test_more_order_helps_on_text_that_repeats():
    texts = ["".join(p) for p in itertools.permutations(["one ", "two ", "three ", "four "])]
    bits = [
        NgramLanguageModel(order).fit(texts[:12]).bits_per_byte(texts[12:]) for order in (1, 2, 4)
    ]
    assert bits[0] > bits[1] > bits[2] > 0


def test_an_order_below_one_is_an_error():
    with pytest.raises(DataError, match="order is 0"):
        NgramLanguageModel(0)


def test_nothing_to_count_is_an_error():
    with pytest.raises(DataError, match="no byte"):
        NgramLanguageModel(3).fit([""])


def test_language_model_baseline_on_the_python_documentation():
    result = baseline("text-generation", {s: sources.build("pydocs", s) for s in sources.SPLITS})
    validation = result["validation"]["bits_per_byte by order"]
    assert validation[result["chosen"]["order"]] == min(validation.values())
    assert 1.5 < result["bits_per_byte"] < 2.6
    assert validation[1] > 4


def test_classifier_baseline_tunes_and_predicts():
    examples = {
        split: sources.build("language", split, size=size, languages=["de", "fr", "fi"])
        for split, size in {"train": 1500, "validation": 150, "test": 300}.items()
    }
    result = baseline("text-classification", examples)
    assert result["macro_f1"] > 0.95
    assert result["accuracy"] > 0.95
    chosen = f"C={result['chosen']['C']:g}" + ", capitals" * result["chosen"]["capitals"]
    scores = result["validation"]["macro_f1"]
    assert scores[chosen] == max(scores.values())
    assert len(scores) == 8


def test_classifier_is_deterministic():
    texts, labels = ["haus baum", "maison arbre", "talo puu"] * 20, ["de", "fr", "fi"] * 20
    first, second = (
        CharNgramClassifier(costs=(1.0,)).fit(texts, labels, texts, labels) for _ in range(2)
    )
    assert first.predict(["hausbaum", "puutalo"]) == second.predict(["hausbaum", "puutalo"])
    assert first.predict(["talo"]) == ["fi"]


def test_errors_name_task_and_split():
    with pytest.raises(DataError, match="task is 'fill-mask'"):
        baseline("fill-mask", {})
    with pytest.raises(DataError, match="validation split is empty"):
        baseline("text-generation", {"train": [{"text": "a"}], "test": [{"text": "b"}]})
