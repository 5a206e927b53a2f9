"""Entities from random logits against a reference written token by token; schemes; windows."""

import random

import numpy as np
import pytest
import serve_bundles as bundles

import serve
from serve.errors import InputError
from serve.pipelines.entities import ScoredToken, is_bio, merge, words_of
from serve.pipelines.results import TokenLabel

BIO = ["O", "B-X", "I-X", "B-Y", "I-Y"]
WORDS = ["The", "cat", "seaboat", "milk,", "honeysun", "x", "sat.", "(red)", "Dänemark", "中文文本"]


class RandomTags:
    """Stands for a session: logits that depend on a token and its place in the row."""

    outputs = ("logits",)

    def __init__(self, vocabulary, labels, seed=0):
        rng = np.random.default_rng(seed)
        self.of_token = rng.normal(size=(vocabulary, labels)).astype(np.float32)
        self.of_place = rng.normal(size=(600, labels)).astype(np.float32) * 2

    def run(self, feeds, outputs):
        ids = feeds["input_ids"]
        return {"logits": self.of_token[ids] + self.of_place[: ids.shape[1]]}


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t") / "t"
    pipeline = serve.load(bundles.encoder_bundle(folder, "token-classification", BIO))
    pipeline.session = RandomTags(pipeline.tokenizer.backend.get_vocab_size(), len(BIO))
    return pipeline


def probabilities(pipeline, ids):
    found = pipeline.session.run({"input_ids": np.array([ids])}, None)["logits"][0]
    return bundles.softmax(found.astype(np.float64))


def reference_words(pipeline, text, kind):
    """(label, score, start, end) of every word, by the pieces' own spelling."""
    encoding = pipeline.tokenizer.backend.encode(text)
    scores = probabilities(pipeline, encoding.ids)
    words = []
    for at in range(1, len(encoding.ids) - 1):
        goes_on = encoding.tokens[at].startswith("##")
        if kind in ("first", "average", "max") and goes_on:
            words[-1].append(at)
        else:
            words.append([at])
    answers = []
    for word in words:
        rows = [scores[at].tolist() for at in word]
        if kind == "average":
            row = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        elif kind == "max":
            row = sorted(rows, key=max)[-1]
        else:
            row = rows[0]
        best = row.index(max(row))
        span = encoding.offsets[word[0]][0], encoding.offsets[word[-1]][1]
        answers.append((BIO[best], row[best], *span))
    return answers


def reference_entities(words):
    """(label, score, start, end): a neighbour of the same name joins unless it begins anew."""
    groups = []
    for at, (label, score, start, end) in enumerate(words):
        name = label[2:]
        joins = (
            at > 0 and label != "O" and words[at - 1][0][2:] == name and not label.startswith("B")
        )
        if joins:
            groups[-1][1].append(score)
            groups[-1][3] = end
        else:
            groups.append([name, [score], start, end])
    return [(n, sum(s) / len(s), a, b) for n, s, a, b in groups if n]


@pytest.mark.parametrize("kind", ["none", "simple", "first", "average", "max"])
def test_entities_of_random_logits(tagger, kind):
    rng = random.Random(0)
    merged = 0
    for _ in range(40):
        text = " ".join(rng.choices(WORDS, k=rng.randrange(1, 8)))
        result = tagger(text, aggregation=kind, long="error")
        words = reference_words(tagger, text, kind)
        assert [(t.label, t.start, t.end) for t in result.tokens] == [
            (label, start, end) for label, _, start, end in words
        ]
        assert [t.score for t in result.tokens] == pytest.approx([w[1] for w in words], abs=1e-6)
        assert all(t.token == text[t.start : t.end] for t in result.tokens)
        assert result.aggregation == kind
        if kind == "none":
            assert result.spans == ()
            continue
        entities = reference_entities(words)
        assert [(s.label, s.start, s.end) for s in result.spans] == [
            (name, start, end) for name, _, start, end in entities
        ]
        assert [s.score for s in result.spans] == pytest.approx([e[1] for e in entities], abs=1e-6)
        assert all(s.text == text[s.start : s.end] for s in result.spans)
        merged += sum(1 for e in entities if sum(e[2] <= w[2] < e[3] for w in words) > 1)
    assert kind == "none" or merged > 5


def test_aggregations_differ(tagger):
    text = " ".join(random.Random(1).choices(WORDS, k=80))
    found = {kind: tagger(text, aggregation=kind).to_dict() for kind in ("first", "average", "max")}
    labels = {kind: [t["label"] for t in found[kind]["tokens"]] for kind in found}
    assert len({tuple(row) for row in labels.values()}) == 3
    assert tagger(text) == tagger(text, aggregation="first")  # BIO labels are labels of words
    with pytest.raises(
        InputError, match="aggregation='mean': expected one of 'none', 'simple', 'f"
    ):
        tagger(text, aggregation="mean")
    with pytest.raises(InputError, match="token-classification has no setting 'unit': it knows"):
        tagger(text, unit="word")
    assert str(tagger("the cat", aggregation="none")).startswith("the/")


@pytest.mark.parametrize("kind", ["simple", "first", "average", "max"])
def test_windows_label_a_token_where_most_is_around_it(tagger, kind):
    text = " ".join(random.Random(3).choices(WORDS, k=60))
    encoding = tagger.tokenizer.backend.encode(text, add_special_tokens=False)
    room, shared = 30, 10
    rows = {}
    begin = 0
    while True:
        part = encoding.ids[begin : begin + room]
        scores = probabilities(tagger, [2, *part, 3])[1:-1]
        last = begin + len(part) == len(encoding.ids)
        for at in range(len(part)):
            left = 999 if begin == 0 else at
            right = 999 if last else len(part) - 1 - at
            rows.setdefault(begin + at, []).append((min(left, right), -begin, scores[at]))
        if last:
            break
        begin += room - shared
    assert max(map(len, rows.values())) == 2
    chosen = [max(found, key=lambda one: one[:2])[2] for _, found in sorted(rows.items())]
    words = []
    for at, token in enumerate(encoding.tokens):
        if token.startswith("##") and kind != "simple":
            words[-1].append(at)
        else:
            words.append([at])
    result = tagger(text, aggregation=kind, stride=shared)
    assert result.windows > 2
    assert not result.truncated
    assert len(result.tokens) == len(words)
    for token, word in zip(result.tokens, words, strict=True):
        found = [chosen[at] for at in word]
        scores = {
            "average": np.mean(found, axis=0),
            "max": max(found, key=max),
        }.get(kind, found[0])
        assert token.label == BIO[int(np.argmax(scores))]
        assert token.score == pytest.approx(float(np.max(scores)), abs=1e-6)
        span = encoding.offsets[word[0]][0], encoding.offsets[word[-1]][1]
        assert (token.start, token.end) == span
    cut = tagger(text, aggregation=kind, long="cut")
    assert (cut.truncated, cut.windows) == (True, 1)
    assert len(cut.tokens) < len(words)
    with pytest.raises(InputError, match="tokens are longer than the model's 32"):
        tagger(text, long="error")


def test_given_words_have_a_label_each(tagger):
    words = ["The", "seaboat's", "\u200d", "New York", "sat"]
    result = tagger({"tokens": words})
    assert [token.token for token in result.tokens] == words
    assert result.tokens[2].label == "O"  # no token stands for it
    text = " ".join(words)
    assert all(text[t.start : t.end] == word for t, word in zip(result.tokens, words, strict=True))
    pieces = tagger({"tokens": words}, aggregation="simple")
    assert len(pieces.tokens) > len(words)
    assert all(text[t.start : t.end] == t.token for t in pieces.tokens)
    first = {t.start: t.label for t in pieces.tokens}
    assert [t.label for t in result.tokens if t.score] == [
        first[t.start] for t in result.tokens if t.score
    ]
    long = {"tokens": words * 20}
    assert len(tagger(long).tokens) == 100
    assert tagger(long).windows > 3
    cut = tagger(long, long="cut")
    assert [token.token for token in cut.tokens] == (words * 20)[: len(cut.tokens)]
    assert len(cut.tokens) < 30
    mixed = tagger(["the cat", long, {"tokens": ["sea"]}, "sat"])
    assert [len(one.tokens) for one in mixed] == [2, 100, 1, 1]
    for bad in ({"tokens": []}, {"tokens": "the cat"}, {"tokens": ["a", 3]}, {"words": ["a"]}):
        with pytest.raises(InputError, match=r"^input 1: "):
            tagger(["the cat", bad])


@pytest.mark.parametrize(
    ("labels", "spans"),
    [
        ("B-X I-X O B-X B-X", [("X", "a b"), ("X", "d"), ("X", "e")]),
        ("I-X I-Y I-Y O I-X", [("X", "a"), ("Y", "b c"), ("X", "e")]),
        ("B M E S S", [("word", "a b c"), ("word", "d"), ("word", "e")]),
        ("B-X E-X I-X S-Y O", [("X", "a b"), ("X", "c"), ("Y", "d")]),
        ("B-X M-X E-X S-X I-X", [("X", "a b c"), ("X", "d"), ("X", "e")]),
        ("B-X L-X U-X I-X L-X", [("X", "a b"), ("X", "c"), ("X", "d e")]),
        ("B_X I_X I_Y O O", [("X", "a b"), ("Y", "c")]),
        ("NOUN NOUN VERB O NOUN", [("NOUN", "a b"), ("VERB", "c"), ("NOUN", "e")]),
        ("B-X-1 I-X-1 I-X-2 O O", [("X-1", "a b"), ("X-2", "c")]),
    ],
)
def test_schemes(labels, spans):
    text = "a b c d e"
    tokens = [
        TokenLabel(text[2 * i], label, 0.5 + i / 10, 2 * i, 2 * i + 1)
        for i, label in enumerate(labels.split())
    ]
    found = merge(text, tokens)
    assert [(span.label, span.text) for span in found] == spans
    for span in found:
        inside = [token.score for token in tokens if span.start <= token.start < span.end]
        assert span.score == pytest.approx(sum(inside) / len(inside))


def test_kinds_of_labels():
    assert is_bio(BIO)
    for labels in (["O", "B-X", "E-X"], ["B", "M", "E", "S"], ["NOUN", "VERB"], ["0", "1"]):
        assert not is_bio(labels)


def test_words_end_at_spaces_where_the_tokenizer_knows_none():
    text = " New York\u3000is\n🙂🙂 big"
    spans = [(0, 4), (4, 7), (7, 9), (10, 12), (13, 14), (13, 14), (14, 15), (15, 17), (17, 19)]
    tokens = [ScoredToken(start, end, 0, np.zeros(2)) for start, end in spans]
    words = [text[w[0].start : w[-1].end].strip() for w in words_of(text, tokens)]
    assert words == ["New", "York", "is", "🙂🙂", "big"]
    assert len(words_of(text, tokens, given=True)) == 1
    lone = [ScoredToken(start, end, word, np.zeros(2)) for start, end, word in
            [(0, 0, 0), (0, 3, 0), (4, 4, 1), (4, 8, 1), (8, 9, 1)]]  # fmt: skip
    assert [len(word) for word in words_of("New York", lone)] == [2, 3]  # tokens of a space alone
