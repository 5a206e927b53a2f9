"""Reranking against numpy: labels, windows, inputs."""

import json

import numpy as np
import pytest
import serve_bundles as bundles
from click.testing import CliRunner

import serve
from serve.commands.predict import predict
from serve.errors import InputError
from serve.pipelines.rerank import relevant_label

LENGTH = 32
TEXTS = ["the cat sat on the mat", "a red boat", "bread, milk and honey are on the table", "sea"]
LONG = "the old house by the sea is red, and the cat sat on the table. bread and milk! " * 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("reranking")


@pytest.fixture(scope="module")
def rerankers(folder):
    def make(name, labels, **choices):
        path = folder / name
        if not path.exists():
            bundles.encoder_bundle(path, "text-classification", labels)
        return serve.load(path, task="reranking", **choices)

    return make


def pair_logits(pipeline, labels, query, document):
    encoding = pipeline.tokenizer.encode([query], [document])[0]
    vocabulary = pipeline.tokenizer.backend.get_vocab_size()
    weights = bundles.encoder_weights(vocabulary, "text-classification", labels)
    weights["source"] = (
        weights["source"][encoding.ids] + 0.125 * np.array(encoding.type_ids)[:, None]
    )
    return bundles.encode(weights, np.arange(len(encoding)))[0] @ weights["logits.w"]


@pytest.mark.parametrize("labels", [["score"], ["contradiction", "neutral", "entailment"]])
def test_reranking(rerankers, labels):
    reranker = rerankers(f"r{len(labels)}", labels)
    logits = [pair_logits(reranker, labels, "the sea", text) for text in TEXTS]
    if len(labels) == 1:
        scores = [1 / (1 + np.exp(-row[0])) for row in logits]
    else:
        scores = [bundles.softmax(row)[2] for row in logits]
    order = np.argsort(scores)[::-1]
    ranking = reranker("the sea", TEXTS)
    assert [found.index for found in ranking.documents] == order.tolist()
    assert [found.text for found in ranking.documents] == [TEXTS[at] for at in order]
    assert np.allclose(
        [found.score for found in ranking.documents], np.sort(scores)[::-1], atol=1e-5
    )
    raw = reranker("the sea", TEXTS, top_k=2, scores="raw")
    assert [found.index for found in raw.documents] == np.argsort([r[-1] for r in logits])[::-1][
        :2
    ].tolist()
    assert np.allclose(reranker.scores("the sea", TEXTS), scores, atol=1e-5)
    several = reranker([{"query": "the sea", "documents": TEXTS}, ("a", [TEXTS[1]]), ("b", [])])
    assert [len(one.documents) for one in several] == [4, 1, 0]
    assert [found.index for found in several[0].documents] == order.tolist()
    json.dumps(ranking.to_dict())


def test_the_best_window_of_a_long_document_counts(rerankers):
    reranker = rerankers("r1", ["score"])
    query = "the sea"
    asked = len(reranker.tokenizer.backend.encode(query, add_special_tokens=False).ids)
    read = reranker.tokenizer.backend.encode(LONG, add_special_tokens=False)
    room = LENGTH - asked - 3
    parts, begin = [], 0
    while begin == 0 or parts[-1][1] < len(read.ids):
        parts.append((begin, min(begin + room, len(read.ids))))
        begin += room - room // 4
    logits = [
        pair_logits(
            reranker, ["score"], query, LONG[read.offsets[first][0] : read.offsets[end - 1][1]]
        )[0]
        for first, end in parts
    ]
    assert len(set(np.round(logits, 3))) > 1
    assert np.isclose(reranker.scores(query, [LONG], scores="raw")[0], max(logits), atol=1e-4)
    assert reranker(query, [LONG], long="cut").truncated


def test_predict_reads_queries_with_documents(rerankers, folder):
    ranking = rerankers("r1", ["score"])("the sea", TEXTS, top_k=2)
    line = json.dumps({"query": "the sea", "documents": TEXTS})
    arguments = [str(folder / "r1"), "--task", "reranking", "--top-k", "2", "--json", line]
    answered = CliRunner().invoke(predict, arguments)
    assert answered.exit_code == 0, answered.exception
    found = json.loads(answered.stdout)["documents"]
    assert [one["index"] for one in found] == [one.index for one in ranking.documents]
    wrong = CliRunner().invoke(predict, [*arguments[:-1], "the sea"])
    assert wrong.exit_code == 2
    assert 'expected {"query": ..., "documents": ...}' in wrong.output


def test_which_label_says_that_a_document_fits(rerankers):
    assert relevant_label(["score"]) == 0
    assert relevant_label(["LABEL_0", "LABEL_1"]) == 1
    assert relevant_label(["entailment", "not_entailment"]) == 0
    assert relevant_label(["good", "bad"], "bad") == 1
    with pytest.raises(InputError, match="which of the labels good, bad"):
        rerankers("r2", ["good", "bad"])
    assert rerankers("r2", ["good", "bad"], label="bad").label == 1
    with pytest.raises(InputError, match="label='ugly': the model's labels are good, bad"):
        rerankers("r2", ["good", "bad"], label="ugly")


def test_inputs_of_reranking_that_do_not_fit(rerankers):
    reranker = rerankers("r1", ["score"])
    for item, message in (
        ("query", "expected a query and a list of documents"),
        ({"query": "a"}, "has the keys 'query' and 'documents'"),
        (("a", "text"), "expected a list of documents"),
        (("a", [3]), "expected a document, got int"),
        ((3, []), "expected a query, got int"),
    ):
        with pytest.raises(InputError, match=message):
            reranker(item)
    with pytest.raises(InputError, match="input 1: "):
        reranker([("a", ["b"]), ("sea " * 40, ["b"])])
    with pytest.raises(InputError, match="scores='logit'"):
        reranker("a", ["b"], scores="logit")
