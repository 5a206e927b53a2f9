"""The encoder pipelines against numpy; batches equal single answers."""

import json

import numpy as np
import pytest
import serve_bundles as bundles

import serve
from serve.errors import InputError

LABELS = {
    "text-classification": ["good", "bad", "ugly"],
    "token-classification": ["O", "B-X", "I-X", "B-Y"],
}
TEXTS = ["the cat sat on the mat", "a red boat", "bread, milk and honey are on the table", "sea"]


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("e")
    made = {}

    def get(task):
        if task not in made:
            bundle = bundles.encoder_bundle(folder / task, task, LABELS.get(task))
            made[task] = serve.load(bundle)
        return made[task]

    return get


def hidden(pipeline, text, pair=None):
    """Last hidden state by numpy, without any padding."""
    weights = weights_of(pipeline)
    encoding = pipeline.tokenizer.encode([text], None if pair is None else [pair])[0]
    shifted = dict(weights)
    x = weights["source"][encoding.ids] + 0.125 * np.array(encoding.type_ids)[:, None]
    shifted["source"] = x
    return encoding, bundles.encode(shifted, np.arange(len(x)))


def weights_of(pipeline):
    vocabulary = pipeline.tokenizer.backend.get_vocab_size()
    return bundles.encoder_weights(vocabulary, pipeline.task, LABELS.get(pipeline.task))


def numbers(value):
    """All numbers of a result, in order, and everything else."""
    if isinstance(value, dict):
        value = [item for pair in sorted(value.items()) for item in pair]
    if isinstance(value, list | tuple):
        parts = [numbers(item) for item in value]
        return [n for part in parts for n in part[0]], [o for part in parts for o in part[1]]
    return ([value], []) if isinstance(value, float) else ([], [value])


@pytest.mark.parametrize(
    ("task", "inputs"),
    [
        ("text-classification", [*TEXTS, ("the cat", "the sea"), {"text": "a", "pair": "b"}]),
        ("token-classification", [*TEXTS, {"tokens": ["the", "seaboat", "sails"]}]),
        ("fill-mask", ["the [MASK] sat", "[MASK] red [MASK] over the old house by the sea"]),
        ("question-answering", [("who sat", text * 3) for text in TEXTS]),
        ("feature-extraction", TEXTS),
        ("sentence-similarity", [*TEXTS, ("the cat", "the old house by the sea")]),
    ],
)
def test_list_equals_single_answers(opened, task, inputs):
    pipeline = opened(task)
    together = pipeline(inputs)
    assert len(together) == len(inputs)
    for item, result in zip(inputs, together, strict=True):
        alone = pipeline(item)
        assert type(alone) is type(result)
        json.dumps(result.to_dict())
        (values, others), (expected, same) = numbers(result.to_dict()), numbers(alone.to_dict())
        assert others == same
        assert np.allclose(values, expected, atol=1e-5)
        assert str(result)
    assert pipeline([]) == []


def test_text_classification(opened):
    pipeline = opened("text-classification")
    for text, pair in (("the cat sat", None), ("the cat", "the sea")):
        _, states = hidden(pipeline, text, pair)
        expected = bundles.softmax(states[0] @ weights_of(pipeline)["logits.w"])
        result = pipeline(text if pair is None else (text, pair))
        assert list(result.scores) == [LABELS[pipeline.task][i] for i in np.argsort(-expected)]
        assert result.label == LABELS[pipeline.task][expected.argmax()]
        assert np.allclose(sorted(result.scores.values()), sorted(expected), atol=1e-5)


def test_long_texts_are_never_cut_silently(opened):
    pipeline = opened("text-classification")
    long = "the old house by the sea " * 20
    short, cut = pipeline(["sea", long], long="cut")
    assert not short.truncated
    assert cut.truncated
    with pytest.raises(InputError, match="input 1: 122 tokens are longer than the model's 32"):
        pipeline(["sea", long], long="error")
    with pytest.raises(InputError, match=r"^122 tokens"):
        pipeline(long, long="error")
    with pytest.raises(InputError, match="long='hide': expected one of 'windows', 'cut', 'error'"):
        pipeline("sea", long="hide")


def test_token_classification_offsets(opened):
    pipeline = opened("token-classification")
    text = "  The cat, and MILK"
    encoding, states = hidden(pipeline, text)
    best = (states @ weights_of(pipeline)["logits.w"]).argmax(-1)
    result = pipeline(text, aggregation="simple")
    assert [token.start for token in result.tokens] == [o[0] for o in encoding.offsets[1:-1]]
    assert [token.label for token in result.tokens] == [
        LABELS[pipeline.task][i] for i in best[1:-1]
    ]
    assert all(text[token.start : token.end] == token.token for token in result.tokens)
    words = pipeline({"tokens": ["the", "seaboat", "sails"]})
    assert [token.token for token in words.tokens] == ["the", "seaboat", "sails"]
    assert [(token.start, token.end) for token in words.tokens] == [(0, 3), (4, 11), (12, 17)]


def test_fill_mask(opened):
    pipeline = opened("fill-mask")
    encoding, states = hidden(pipeline, "the [MASK] sat")
    at = encoding.ids.index(4)
    expected = bundles.softmax(states[at] @ weights_of(pipeline)["logits.w"])
    [fills] = pipeline("the [MASK] sat", top_k=3).masks
    assert [fill.token_id for fill in fills] == np.argsort(-expected)[:3].tolist()
    assert np.allclose([fill.score for fill in fills], np.sort(expected)[::-1][:3], atol=1e-5)
    assert all("[" not in fill.text or fill.token.startswith("[") for fill in fills)
    with pytest.raises(InputError, match=r"no \[MASK\]"):
        pipeline("the cat sat")
    with pytest.raises(InputError, match="top_k=0"):
        pipeline("the [MASK]", top_k=0)
    with pytest.raises(InputError, match=r"targets: 'zz' is no token .* has only \[UNK\] for it"):
        pipeline("the [MASK]", targets=["sea", "zz"])
    [[fill]] = pipeline("the [MASK]", targets=["[UNK]"]).masks  # as the vocabulary spells it
    assert fill.token == "[UNK]"


def test_question_answering(opened):
    pipeline = opened("question-answering")
    context = "the old house by the sea is red, and the cat sat on the table"
    result = pipeline({"question": "who sat", "context": context})
    assert context[result.start : result.end] == result.text
    assert 0 < result.score <= 1
    long = pipeline(("who sat", (context + ". ") * 6))
    assert long.windows > 3
    assert ((context + ". ") * 6)[long.start : long.end] == long.text
    for bad in ("who", {"question": "who"}, {"question": "who", "text": "x"}, ("a", "b", "c")):
        with pytest.raises(InputError):
            pipeline(bad)
    with pytest.raises(InputError, match="longer than"):
        pipeline(("who", context * 9), long="error")


def test_features_and_embeddings(opened):
    pipeline = opened("feature-extraction")
    encoding, states = hidden(pipeline, TEXTS[0])
    result = pipeline([TEXTS[0], TEXTS[2]])[0]
    assert result.tokens == tuple(encoding.tokens)
    assert np.allclose(result.values, states, atol=1e-5)
    pipeline = opened("sentence-similarity")
    first, second = (pipeline(text).values for text in TEXTS[:2])
    assert np.isclose(np.linalg.norm(first), 1, atol=1e-5)
    assert np.isclose(pipeline((TEXTS[0], TEXTS[1])).score, first @ second, atol=1e-5)


def test_inputs_of_the_wrong_kind(opened):
    pipeline = opened("text-classification")
    for bad in (3, None, ("a",), {"textt": "a"}, ["a", 3], ("a", 4), b"bytes"):
        with pytest.raises(InputError):
            pipeline(bad)
    with pytest.raises(InputError, match="takes one text"):
        opened("fill-mask")(("a [MASK]", "b"))
    with pytest.raises(InputError, match="no setting 'topk': it knows long, stride"):
        pipeline("a", topk=3)
