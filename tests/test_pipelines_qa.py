"""Answers against every span of every window, read one by one."""

import json

import numpy as np
import pytest
import serve_bundles as bundles

import serve
from serve.errors import InputError

LENGTH = 32  # what the bundle reads
QUESTION = "who sat"
CONTEXT = "the old house by the sea is red, and the cat sat on the table. bread and milk! " * 3


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return serve.load(
        bundles.encoder_bundle(tmp_path_factory.mktemp("qa") / "b", "question-answering")
    )


@pytest.fixture(scope="module")
def weights(pipeline):
    vocabulary = pipeline.tokenizer.backend.get_vocab_size()
    return bundles.encoder_weights(vocabulary, "question-answering")


def windows(pipeline, question, context, stride):
    """Token ids, context tokens and their first place: every window, cut by hand."""
    backend = pipeline.tokenizer.backend
    asked = backend.encode(question, add_special_tokens=False).ids
    read = backend.encode(context, add_special_tokens=False)
    room = LENGTH - len(asked) - 3
    stride = room // 4 if stride is None else stride
    begin = 0
    while True:
        part = read.ids[begin : begin + room]
        yield [2, *asked, 3, *part, 3], len(asked) + 2, begin, len(part), read.offsets
        if begin + room >= len(read.ids):
            return
        begin += room - stride


def logits_of(weights, ids, context_at):
    types = np.arange(len(ids)) >= context_at
    shifted = {**weights, "source": weights["source"][ids] + 0.125 * types[:, None]}
    states = bundles.encode(shifted, np.arange(len(ids)))
    return (states @ weights[f"{side}_logits.w"][:, 0] for side in ("start", "end"))


def by_hand(pipeline, weights, question, context, longest, stride):
    """Logit of every distinct span by its characters, and of "no answer"."""
    spans, nothing, count = {}, [], 0
    for ids, at, begin, size, offsets in windows(pipeline, question, context, stride):
        count += 1
        start, end = logits_of(weights, ids, at)
        nothing.append(start[0] + end[0])
        for i in range(size):
            for j in range(i, min(size, i + longest)):
                key = (offsets[begin + i][0], offsets[begin + j][1])
                spans[key] = max(spans.get(key, -np.inf), start[at + i] + end[at + j])
    return spans, min(nothing), count


@pytest.mark.parametrize("context", [CONTEXT, CONTEXT[:40], "sea"])
@pytest.mark.parametrize(("longest", "stride"), [(1, None), (4, 3), (30, 10), (30, 0)])
def test_every_span_of_every_window(pipeline, weights, context, longest, stride):
    spans, nothing, count = by_hand(pipeline, weights, QUESTION, context, longest, stride)
    ranked = sorted(spans, key=lambda key: -spans[key])[:5]
    shares = bundles.softmax(np.array([*(spans[key] for key in ranked), *spans.values(), nothing]))
    scale = shares[len(ranked) :].sum()  # the ranked ones are there twice
    result = pipeline(
        (QUESTION, context), max_answer_length=longest, stride=stride, top_k=5, long="windows"
    )
    assert result.windows == count
    found = [(span.start, span.end) for span in result.spans]  # equal ones in any order
    assert len(set(found)) == len(ranked)
    assert np.allclose([spans[key] for key in found], [spans[key] for key in ranked], atol=1e-4)
    scores = [span.score for span in result.spans]
    assert np.allclose(scores, shares[: len(ranked)] / scale, rtol=1e-4)
    assert np.isclose(result.no_answer_score, shares[-1] / scale, rtol=1e-4)
    assert np.isclose(result.no_answer_difference, nothing - spans[ranked[0]], atol=1e-4)
    assert (result.start, result.end, result.score) == (*found[0], scores[0])
    assert result.text == context[result.start : result.end]
    json.dumps(result.to_dict(), allow_nan=False)


def test_probabilities_of_all_spans_add_up(pipeline):
    result = pipeline((QUESTION, CONTEXT), top_k=10**6)
    assert len(result.spans) > 500
    total = sum(span.score for span in result.spans) + result.no_answer_score
    assert np.isclose(total, 1.0)


def test_no_answer_is_what_the_threshold_makes_it(pipeline):
    plain = pipeline((QUESTION, CONTEXT))
    below, above = plain.no_answer_difference - 0.01, plain.no_answer_difference + 0.01
    item = (QUESTION, CONTEXT)
    nothing = pipeline(item, handle_impossible=True, no_answer_threshold=below)
    assert (nothing.text, nothing.start, nothing.end) == ("", 0, 0)
    assert nothing.score == nothing.no_answer_score == plain.no_answer_score
    assert nothing.spans == plain.spans
    assert pipeline(item, handle_impossible=True, no_answer_threshold=above) == plain


def test_windows_of_several_contexts_do_not_mix(pipeline):
    items = [(QUESTION, CONTEXT), ("where", "sea"), {"question": "what", "context": CONTEXT[9:]}]
    for together, item in zip(pipeline(items), items, strict=True):
        alone = pipeline(item)
        assert (together.start, together.end) == (alone.start, alone.end)
        assert np.isclose(together.score, alone.score, atol=1e-6)
    assert [answer.text for answer in pipeline(iter(items))] == [a.text for a in pipeline(items)]


def test_a_cut_context_is_said(pipeline):
    cut = pipeline((QUESTION, CONTEXT), long="cut")
    assert cut.truncated and cut.windows == 1
    assert not pipeline((QUESTION, CONTEXT)).truncated


def test_an_empty_context_has_no_answer(pipeline):
    result = pipeline((QUESTION, ""))
    assert (result.text, result.no_answer_score, result.spans) == ("", 1.0, ())
    json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 0}, "top_k=0"),
        ({"max_answer_length": 0}, "max_answer_length=0"),
        ({"stride": 29}, "stride=29"),
        ({"no_answer_threshold": 1.0}, "of handle_impossible=True"),
        ({"handle_impossible": True, "no_answer_threshold": "x"}, "expected a number"),
        ({"doc_stride": 3}, "it knows long, stride, max_answer_length"),
    ],
)
def test_unfit_settings(pipeline, settings, message):
    with pytest.raises(InputError, match=message):
        pipeline((QUESTION, CONTEXT), **settings)
