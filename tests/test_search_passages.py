"""Passages of texts, and the vectors nearest to a query."""

import sys
from itertools import pairwise

import numpy as np
import pytest
import search_cases
from search_cases import STORY

import serve
from serve.errors import InputError
from serve.search import nearest as nearest_rows
from serve.search import passages as cutting
from serve.search.nearest import largest, nearest
from serve.search.passages import PassageCutter, cut


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return search_cases.make_bundles(tmp_path_factory.mktemp("search"))


@pytest.fixture
def embedder(bundle):
    return search_cases.Counting(serve.load(bundle))


# --- passages -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tokens", "overlap"), [(1, 0), (4, 0), (5, 4), (12, 3), (99, 9)])
def test_passages_hold_every_token_and_no_more_than_they_may(embedder, tokens, overlap):
    text = STORY * 3
    spans = list(PassageCutter(embedder.tokenizer, tokens, overlap)(text))
    offsets = embedder.tokenizer.backend.encode(text, add_special_tokens=False).offsets
    rows = [
        [i for i, (a, b) in enumerate(offsets) if start <= a and b <= end] for start, end in spans
    ]
    assert sorted({i for row in rows for i in row}) == list(range(len(offsets)))
    assert max(map(len, rows)) <= tokens
    for before, after in pairwise(rows):
        assert before[0] < after[0] and before[-1] < after[-1]
        assert before[-1] + 1 - after[0] <= overlap
    assert all(text[start:end] == text[start:end].strip() for start, end in spans)


def test_passages_end_where_the_text_does():
    def parts(text, tokens, overlap=0):
        offsets, at = [], 0
        for word in text.split():
            at = text.index(word, at)
            offsets.append((at, at + len(word)))
            at += len(word)
        return [text[start:end] for start, end in cut(text, offsets, tokens, overlap)]

    assert parts("a b c d.\n\ne f g h", 6) == ["a b c d.", "e f g h"]
    assert parts("a b c d. e f g h", 6) == ["a b c d.", "e f g h"]
    assert parts("a b c\nd e f g h", 5) == ["a b c", "d e f g h"]
    assert parts('a b "c d." e f g h', 6) == ['a b "c d."', "e f g h"]
    assert parts("a b c d e f g h", 3) == ["a b c", "d e f", "g h"]
    assert parts("a b. c d e f g h", 6) == ["a b. c d e f", "g h"]  # less than half
    assert parts("a b c d. e f g h", 6, 2) == ["a b c d.", "c d. e f g h"]
    assert parts("a b c. d e f g h", 5, 2) == ["a b c.", "b c. d e f", "e f g h"]
    assert parts("", 3) == []


def test_words_are_not_cut_while_there_are_borders(embedder):
    text = "boat " * 4 + "seahousetable " * 4
    spans = list(PassageCutter(embedder.tokenizer, 20, 6)(text))
    assert len(spans) > 1
    assert {word for start, end in spans for word in text[start:end].split()} == set(text.split())


def test_long_texts_are_tokenized_piece_by_piece(embedder, monkeypatch):
    cutter = PassageCutter(embedder.tokenizer, 12, 0)
    text = STORY * 8
    whole = list(cutter(text))
    monkeypatch.setattr(cutting, "_PIECE", 150)
    pieces = list(cutter(text))
    assert pieces == whole
    monkeypatch.setattr(cutting, "_PIECE", 20)  # less than a passage
    spans = list(cutter("the sea " * 30))
    assert (spans[0][0], spans[-1][1]) == (0, len("the sea " * 30) - 1)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert list(cutter(" \n" * 500)) == []


def test_passages_that_cannot_be(embedder):
    for tokens, overlap in ((0, 0), (3, 3), (3, -1)):
        with pytest.raises(InputError, match="expected at least 1 token"):
            PassageCutter(embedder.tokenizer, tokens, overlap)


# --- the nearest ----------------------------------------------------------------------------------


def vectors_of(count, width=8, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("k", [1, 5, 100, 1000])
@pytest.mark.parametrize("queries", [1, 7, 300])
def test_the_nearest_by_sorting_all(k, queries, monkeypatch):
    monkeypatch.setattr(nearest_rows, "_BLOCK_BYTES", 4 * 37 * queries)
    vectors, asked = vectors_of(500), vectors_of(queries, seed=1)
    scores, rows = largest(vectors, asked, k)
    products = asked @ vectors.T
    expected = np.sort(products, axis=1)[:, ::-1][:, :k]
    assert scores.shape == rows.shape == expected.shape
    assert np.allclose(scores, expected, atol=1e-6)
    assert np.allclose(np.take_along_axis(products, rows, 1), scores, atol=1e-6)
    assert all(len(set(row)) == len(row) for row in rows.tolist())


def test_of_equal_ones_the_first_comes_first():
    vectors = np.ones((9, 4), np.float32)
    _, rows = largest(vectors, np.ones((1, 4), np.float32), 9)
    assert rows.tolist() == [list(range(9))]


def test_faiss_finds_the_same():
    pytest.importorskip("faiss")
    vectors, asked = vectors_of(2000, 16), vectors_of(20, 16, seed=1)
    scores, rows = nearest(vectors)(asked, 10)
    same_scores, same_rows = nearest(vectors, "faiss")(asked, 10)
    assert np.array_equal(rows, same_rows)
    assert np.allclose(scores, same_scores, atol=1e-6)
    _, near = nearest(vectors, "faiss-ivf")(asked, 10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, near, strict=True)])
    assert recall > 0.8


def test_faiss_says_nothing_of_few_vectors(capfd):
    pytest.importorskip("faiss")
    nearest(vectors_of(300, 16), "faiss-ivf")(vectors_of(2, 16), 3)
    assert capfd.readouterr() == ("", "")


def test_a_backend_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(InputError, match=r"pip install 'keras-text-zoo\[search\]'"):
        nearest(vectors_of(3), "faiss")
    with pytest.raises(InputError, match="backend='annoy': expected one of"):
        nearest(vectors_of(3), "annoy")
