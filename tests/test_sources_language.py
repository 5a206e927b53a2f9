"""Language: clean labels, and no string on two sides."""

import itertools
from collections import Counter, defaultdict

import pytest

from zoo.data.sources import SPLITS, language
from zoo.errors import DataError


@pytest.fixture(scope="module")
def corpus():
    return language._corpus()


def test_no_string_is_in_two_splits(corpus):
    strings = {
        split: {language.normalize(text) for texts in by_label.values() for text in texts}
        for split, by_label in corpus.items()
    }
    for a, b in itertools.combinations(strings.values(), 2):
        assert not a & b


def test_no_string_has_two_languages(corpus):
    labels = defaultdict(set)
    for by_label in corpus.values():
        for label, texts in by_label.items():
            for text in texts:
                labels[language.normalize(text)].add(label)
    assert len(labels) > 200_000
    assert all(len(found) == 1 for found in labels.values())
    # Written alike in dozens of languages, so in none of the splits.
    assert "angola" not in labels
    assert "2019年3月4日" not in labels


def test_names_of_the_test_are_no_names_of_training(corpus):
    """Items are split for all languages at once: no territory is known from another language."""
    keys = sorted(language._Language("en").names)
    splits = defaultdict(set)
    for split, kind, value in language._items(keys):
        if kind == "name":
            splits[value].add(split)
        elif kind == "list":
            for key in value:
                splits[key].add(split)
    assert all(len(found) == 1 for found in splits.values())
    assert {"test", "validation", "train"} == set().union(*splits.values())


def test_every_language_has_enough_strings(corpus):
    assert len(language.LANGUAGES) == len(set(language.LANGUAGES)) == 61
    for label in language.LANGUAGES:
        assert len(corpus["train"][label]) > 1500, label
        assert len(corpus["test"][label]) > 150, label


@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_balanced(split):
    counts = Counter(example["label"] for example in language.build(split, size=61 * 80))
    assert set(counts) == set(language.LANGUAGES)
    assert set(counts.values()) == {80}


def test_known_strings_are_there(corpus):
    found = {text for by_label in corpus.values() for text in by_label["de"]}
    assert {"Österreich", "vor 15 Minuten", "Mitteleuropäische Sommerzeit"} <= found
    assert {"la semaine dernière", "Autriche"} & {t for s in corpus.values() for t in s["fr"]}


def test_bad_options_are_errors():
    with pytest.raises(DataError, match="klingon"):
        language.build("train", languages=["de", "klingon"])
    with pytest.raises(DataError, match="size is -1"):
        language.build("train", size=-1)
