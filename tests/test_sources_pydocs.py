"""The Python documentation: topics repeat each other, the splits do not."""

import itertools
from pydoc_data.topics import topics

import pytest

from zoo.data.sources import SPLITS, pydocs
from zoo.errors import DataError


def _long_paragraphs(examples):
    paragraphs = (
        pydocs._key(p) for example in examples for p in pydocs._paragraphs(example["text"])
    )
    return [paragraph for paragraph in paragraphs if len(paragraph) >= pydocs._SHORT]


def test_no_paragraph_is_in_two_splits_or_twice():
    found = {split: _long_paragraphs(pydocs.build(split)) for split in SPLITS}
    for paragraphs in found.values():
        assert len(paragraphs) == len(set(paragraphs))
    for a, b in itertools.combinations(found.values(), 2):
        assert not set(a) & set(b)


def test_no_paragraph_is_lost():
    every = {p for split in SPLITS for p in _long_paragraphs(pydocs.build(split))}
    assert every == set(_long_paragraphs({"text": text} for text in topics.values()))


def test_splits_have_about_their_shares():
    sizes = {split: sum(len(e["text"]) for e in pydocs.build(split)) for split in SPLITS}
    total = sum(sizes.values())
    assert total > 250_000
    for split, share in pydocs.SHARES.items():
        assert 0.5 * share < sizes[split] / total <= share


def test_topics_that_share_a_paragraph_are_one_group():
    text = "A paragraph that is long enough to count as shared text."
    other = "Another paragraph, just as long, of quite different words."
    groups = pydocs._groups(
        {
            "a": text,
            "b": f"{other}\n\n  {text}",
            "c": f"x\n\n{other}",
            "d": "Nothing in common at all.",
        }
    )
    assert groups == [["b", "c", "a"], ["d"]]


def test_max_chars_cuts_between_paragraphs():
    whole, cut = pydocs.build("train"), pydocs.build("train", max_chars=800)
    assert len(cut) > 3 * len(whole)
    assert sorted(_long_paragraphs(whole)) == sorted(_long_paragraphs(cut))
    for example in cut:
        assert len(example["text"]) <= 801 or len(pydocs._paragraphs(example["text"])) == 1
    with pytest.raises(DataError, match="max_chars is 0"):
        pydocs.build("train", max_chars=0)
