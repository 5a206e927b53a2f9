"""Vectors against numpy: pooling, windows, prompts, shorter forms."""

import json

import numpy as np
import pytest
import serve_bundles as bundles

import serve
from serve.errors import BundleError, InputError
from serve.pipelines.embedding import cosines

LENGTH = 32
TEXTS = ["the cat sat on the mat", "a red boat", "bread, milk and honey are on the table", "sea"]
LONG = "the old house by the sea is red, and the cat sat on the table. bread and milk! " * 2
POOLINGS = {
    "mean": lambda states: states.mean(0),
    "cls": lambda states: states[0],
    "last": lambda states: states[-1],
    "max": lambda states: states.max(0),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("embedding")
    bundles.encoder_bundle(path / "states", "feature-extraction")
    bundles.encoder_bundle(path / "vectors", "sentence-similarity", pooling="cls", normalize=True)
    return path


@pytest.fixture(scope="module")
def embedder(folder):
    return serve.load(folder / "states", task="sentence-similarity")


@pytest.fixture(scope="module")
def pooled(folder):
    return serve.load(folder / "vectors")


def states_of(pipeline, ids):
    """Hidden states of a row of ids, by numpy."""
    vocabulary = pipeline.tokenizer.backend.get_vocab_size()
    return bundles.encode(bundles.encoder_weights(vocabulary, "feature-extraction"), ids)


def rows_of(pipeline, text, stride=None):
    """Ids of every window of a text and the tokens that are new in it, cut by hand."""
    ids = pipeline.tokenizer.backend.encode(text, add_special_tokens=False).ids
    room = LENGTH - 2
    stride = room // 4 if stride is None else stride
    rows, begin = [], 0
    while True:
        part = ids[begin : begin + room]
        rows.append(([2, *part, 3], len(part) - (stride if begin else 0)))
        if begin + room >= len(ids):
            return rows
        begin += room - stride


def unit(vector):
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("normalize", [True, False])
def test_pooling_of_real_tokens(embedder, pooling, normalize):
    found = embedder(TEXTS, pooling=pooling, normalize=normalize)  # one batch: padded
    for text, answer in zip(TEXTS, found, strict=True):
        [(ids, _)] = rows_of(embedder, text)
        vector = POOLINGS[pooling](states_of(embedder, ids))
        assert np.allclose(answer.values, unit(vector) if normalize else vector, atol=1e-5)
        assert answer.values.dtype == np.float32 and answer.windows == 1


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("stride", [None, 0, 11])
def test_long_texts_are_pooled_over_windows(embedder, pooling, stride):
    rows = rows_of(embedder, LONG, stride)
    assert len(rows) > 1
    vectors = [POOLINGS[pooling](states_of(embedder, ids)) for ids, _ in rows]
    weights = [new for _, new in rows]
    expected = {
        "max": np.max(vectors, axis=0),
        "last": vectors[-1],
    }.get(pooling, np.average(vectors, axis=0, weights=weights))
    answer = embedder(LONG, pooling=pooling, stride=stride, normalize=False)
    assert np.allclose(answer.values, expected, atol=1e-5)
    assert (answer.windows, answer.truncated) == (len(rows), False)
    cut = embedder(LONG, pooling=pooling, normalize=False, long="cut")
    assert cut.truncated and not np.allclose(cut.values, expected, atol=1e-3)
    with pytest.raises(InputError, match="longer than the model's 32"):
        embedder(LONG, long="error")


def test_vectors_that_the_graph_pools_have_windows_too(pooled):
    rows = rows_of(pooled, LONG)
    vectors = [unit(states_of(pooled, ids)[0]) for ids, _ in rows]
    expected = unit(np.average(vectors, axis=0, weights=[new for _, new in rows]))
    assert np.allclose(pooled(LONG).values, expected, atol=1e-5)
    with pytest.raises(InputError, match=r"pools by itself \(cls\)"):
        pooled("sea", pooling="mean")
    with pytest.raises(InputError, match="length 1 by itself"):
        pooled("sea", normalize=False)
    assert np.array_equal(pooled("sea", pooling="cls").values, pooled("sea").values)


def test_states_of_long_texts_are_joined(folder):
    extractor = serve.load(folder / "states")
    whole = extractor(LONG)
    tokens = extractor.tokenizer.backend.encode(LONG, add_special_tokens=False).tokens
    assert list(whole.tokens) == ["[CLS]", *tokens, "[SEP]"]
    rows = rows_of(extractor, LONG)
    states = [states_of(extractor, ids) for ids, _ in rows]
    room, shared = LENGTH - 2, (LENGTH - 2) // 4
    for at, token in enumerate(whole.values[1:-1]):
        begins = [k * (room - shared) for k in range(len(rows))]
        seen = {
            k: min(at - begin, begin + len(rows[k][0]) - 3 - at)
            for k, begin in enumerate(begins)
            if begin <= at < begin + len(rows[k][0]) - 2
        }
        most = max(seen.values())  # the distance to the nearer end of the window
        sides = [states[k][at - begins[k] + 1] for k, far in seen.items() if far == most]
        assert any(np.allclose(token, side, atol=1e-5) for side in sides)
    assert np.allclose(whole.values[0], states[0][0], atol=1e-5)
    assert np.allclose(whole.values[-1], states[-1][-1], atol=1e-5)
    assert whole.windows == len(rows)


def test_prompts(folder, embedder, tmp_path):
    expected = embedder.embed(["a red boat"])
    assert np.array_equal(embedder.embed(["boat"], prompt="a red "), expected)
    given = serve.load(
        folder / "states", task="sentence-similarity", prompts={"q": "a red "}, prompt_name="q"
    )
    assert np.array_equal(given.embed(["boat"]), expected)
    assert np.array_equal(given.embed(["a red boat"], prompt=""), expected)
    with pytest.raises(InputError, match=r"prompt_name='x': the model's prompts are 'q'"):
        given("boat", prompt_name="x")
    with pytest.raises(InputError, match="give one of them"):
        given("boat", prompt_name="q", prompt="a")
    with pytest.raises(InputError, match="prompts are none"):
        embedder("boat", prompt_name="q")


def test_prompts_of_the_bundle(tmp_path):
    bundle = bundles.encoder_bundle(tmp_path / "b", "sentence-similarity")
    file = bundle / "config_sentence_transformers.json"
    file.write_text(json.dumps({"prompts": {"query": "a red "}, "default_prompt_name": "query"}))
    embedder = serve.load(bundle)
    assert np.array_equal(embedder("boat").values, embedder("a red boat", prompt="").values)
    for broken, message in (
        ("[]", "expected an object"),
        ('{"prompts": {"a": 1}}', "a text for each name"),
        ('{"default_prompt_name": "a"}', "is none of"),
        ("{", "cannot be read"),
    ):
        file.write_text(broken)
        with pytest.raises(BundleError, match=message):
            serve.load(bundle)


def test_dimensions_are_cut_and_brought_back_to_length(embedder, pooled):
    for pipeline in (embedder, pooled):
        whole, short = pipeline.embed(TEXTS), pipeline.embed(TEXTS, dimensions=5)
        assert short.shape == (len(TEXTS), 5)
        for long_one, short_one in zip(whole, short, strict=True):
            assert np.allclose(short_one, unit(long_one[:5]), atol=1e-6)
    raw = embedder.embed(TEXTS, normalize=False)
    assert np.array_equal(embedder.embed(TEXTS, normalize=False, dimensions=5), raw[:, :5])
    with pytest.raises(
        InputError, match=f"dimensions=33: the model's vectors have {bundles.WIDTH}"
    ):
        embedder("sea", dimensions=33)


def test_smaller_precisions(embedder):
    whole = embedder.embed(TEXTS)
    small = embedder.embed(TEXTS, precision="int8")
    assert small.dtype == np.int8 and (np.abs(small).max(1) == 127).all()
    gap = np.abs(cosines(small.astype(np.float32), small.astype(np.float32)) - whole @ whole.T)
    assert gap.max() < 0.01
    bits = embedder.embed(TEXTS, precision="binary")
    assert bits.shape == (len(TEXTS), bundles.WIDTH // 8)
    assert np.array_equal(np.unpackbits(bits, axis=1), whole > 0)
    with pytest.raises(InputError, match="precision is of vectors"):
        embedder((TEXTS[0], TEXTS[1]), precision="int8")


def test_similarities(embedder):
    matrix = embedder.similarity(TEXTS[:2], TEXTS, prompt="a ")
    assert matrix.shape == (2, 4)
    for i, first in enumerate(TEXTS[:2]):
        for j, second in enumerate(TEXTS):
            assert np.isclose(matrix[i, j], embedder((first, second), prompt="a ").score, atol=1e-5)
    assert np.allclose(np.diag(matrix), 1, atol=1e-5)


def test_streams_equal_lists(embedder):
    texts = [f"{TEXTS[at % 4]} {'sea ' * (at % 7)}" for at in range(40)]
    embedder.read_ahead = 8
    streamed = [answer.values for answer in embedder(text for text in texts)]
    assert np.allclose(streamed, embedder.embed(texts), atol=1e-5)


def test_settings_that_do_not_fit(folder, embedder):
    extractor = serve.load(folder / "states")
    for settings, message in (
        ({"pooling": "sum"}, "pooling='sum': expected one of 'mean'"),
        ({"dimensions": 0}, "dimensions=0"),
        ({"precision": "int4"}, "precision='int4'"),
        ({"normalize": True}, "normalize is about a text's vector"),
        ({"dimensions": 3}, "dimensions is about a text's vector"),
        ({"pool": "mean"}, "it knows long, stride, pooling, normalize, prompt"),
    ):
        with pytest.raises(InputError, match=message):
            extractor("sea", **settings)
    with pytest.raises(InputError, match="needs a way to pool"):
        extractor.embed(["sea"])
    with pytest.raises(InputError, match="gives no vector of a text"):
        embedder("sea", pooling="none")
    with pytest.raises(InputError, match="pooling='sum'"):
        serve.load(folder / "states", pooling="sum")
    assert embedder.embed([]).shape == (0, bundles.WIDTH)
    assert embedder.embed([], precision="binary").shape == (0, bundles.WIDTH // 8)
    with pytest.raises(InputError, match="input 1: expected a text"):
        embedder(["sea", 3])


def test_texts_in_dicts_and_pairs(folder, embedder):
    extractor = serve.load(folder / "states")
    plain = extractor("sea").values
    assert np.array_equal(extractor({"text": "sea"}).values, plain)
    assert np.array_equal(embedder({"text": "sea"}).values, embedder("sea").values)
    pooled = extractor({"text": "sea"}, pooling="mean").values
    assert np.array_equal(pooled, extractor("sea", pooling="mean").values)
    with pytest.raises(InputError, match="input 1: a pair has no vector"):
        embedder.embed(["sea", ("a", "b")])
    with pytest.raises(InputError, match="takes one text per input"):
        extractor(("a", "b"))


@pytest.mark.parametrize("texts", ["a red boat", None, 3, {"a": "b"}, b"a"])
def test_a_list_of_texts_is_no_single_one(embedder, texts):
    with pytest.raises(InputError, match=r"^texts: expected a list of texts, got "):
        embedder.embed(texts)
    with pytest.raises(InputError, match=r"^first: expected a list of texts, got "):
        embedder.similarity(texts, TEXTS)
    with pytest.raises(InputError, match=r"^second: expected a list of texts, got "):
        embedder.similarity(TEXTS, texts)


def test_lists_of_texts_may_be_generators(embedder):
    np.testing.assert_allclose(embedder.embed(text for text in TEXTS), embedder.embed(TEXTS))
    found = embedder.similarity((text for text in TEXTS), tuple(TEXTS[:2]))
    assert found.shape == (len(TEXTS), 2)


def test_choices_of_another_kind_are_refused(folder, embedder):
    for prompts in (["a"], {"a": 1}, "a"):
        with pytest.raises(InputError, match=r"^prompts=.*expected a text for each name"):
            serve.load(folder / "states", task="sentence-similarity", prompts=prompts)
    with pytest.raises(InputError, match="normalize='x': expected True or False"):
        embedder("a boat", normalize="x")
    with pytest.raises(InputError, match="prompt_name="):
        embedder("a boat", prompt_name=["a"])
