"""Streaming detokenisation, stop strings, and text generation end to end."""

import numpy as np
import pytest
import serve_bundles as bundles
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import serve
from serve.bundle.manifest import TokenizerSpec
from serve.errors import BundleError, InputError
from serve.runtime.batching import token_batches
from serve.text.assembling import Detokenizer, StopCutter
from serve.text.tokenizer import TextTokenizer


def byte_level(folder):
    return bundles.bpe_tokenizer(folder)


def wordpiece(folder):
    return bundles.wordpiece_tokenizer(folder)


def metaspace(folder):
    """SentencePiece style: unigram with byte fallback for what it does not know."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=["<pad>", "</s>", "<unk>", *tokens], unk_token="<unk>",
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(bundles.TEXTS[:3] * 5, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


@pytest.mark.parametrize("make", [byte_level, wordpiece, metaspace])
def test_pieces_add_up_to_the_text(make, tmp_path):
    make(tmp_path)
    tokenizer = TextTokenizer(tmp_path / "tokenizer.json", TokenizerSpec(max_length=100))
    rows = [list(encoding.ids) for encoding in tokenizer.encode(bundles.TEXTS)]
    if make is metaspace:
        ids = [tokenizer.backend.token_to_id(f"<0x{b:02X}>") for b in " é日本😀".encode()]
        rows.append([*rows[0], *ids, *rows[1]])
    rng = np.random.default_rng(0)
    rows += [rng.integers(0, tokenizer.backend.get_vocab_size(), 40).tolist() for _ in range(20)]
    for ids in rows:
        detokenizer = Detokenizer(tokenizer)
        pieces = [detokenizer.push(token) for token in ids]
        whole = tokenizer.decode(ids)
        assert "".join([*pieces, detokenizer.finish()]) == whole
        if "\ufffd" not in whole:
            assert not any("\ufffd" in piece for piece in pieces)


def test_half_a_character_is_held_back(tmp_path):
    byte_level(tmp_path)
    tokenizer = TextTokenizer(tmp_path / "tokenizer.json", TokenizerSpec(max_length=100))
    [encoding] = tokenizer.encode(["a😀b"])
    assert len(encoding.ids) == 6
    detokenizer = Detokenizer(tokenizer)
    assert [detokenizer.push(token) for token in encoding.ids] == ["a", "", "", "", "😀", "b"]
    cut = Detokenizer(tokenizer)
    assert [cut.push(token) for token in encoding.ids[:3]] == ["a", "", ""]
    assert cut.finish() == "\ufffd"


@pytest.mark.parametrize("size", [1, 2, 3, 50])
@pytest.mark.parametrize(
    ("stops", "expected"),
    [
        (["END"], "one EN two "),
        (["zzz"], None),
        (["wo", "two"], "one EN "),
        (["n"], "o"),
        ([], None),
    ],
)
def test_stop_strings_in_any_pieces(size, stops, expected):
    text = "one EN two ENEND three"
    expected = text if expected is None else expected
    if stops == ["END"]:
        expected = "one EN two EN"
    cutter = StopCutter(stops)
    shown = "".join(cutter.push(text[at : at + size]) for at in range(0, len(text), size))
    assert shown + cutter.finish() == expected
    assert cutter.stopped == (expected != text)


def test_batches_keep_within_the_budget():
    sizes = [5, 100, 3, 7, 30, 30, 1]
    batches = list(token_batches(sizes, 60, 3))
    assert sorted(at for batch in batches for at in batch) == list(range(7))
    assert batches[0] == [1]  # too long for the budget: alone
    for batch in batches[1:]:
        assert max(sizes[at] for at in batch) * len(batch) <= 60
        assert len(batch) <= 3
    with pytest.raises(InputError):
        list(token_batches([1], 0, 1))


@pytest.fixture(scope="module", params=["decoder", "seq2seq"])
def pipeline(request, tmp_path_factory):
    make = bundles.decoder_bundle if request.param == "decoder" else bundles.seq2seq_bundle
    return serve.load(make(tmp_path_factory.mktemp("p") / "bundle"))


SAMPLING = [{}, {"seed": 5, "temperature": 1.5, "top_k": 50}]


@pytest.mark.parametrize("settings", SAMPLING)
def test_list_equals_single_answers_in_order(pipeline, settings):
    texts = [
        "the cat",
        "a red boat sails over the sea",
        "日本",
        "bread",
        "the old house by the sea",
    ]
    pipeline.batch_size = 2
    together = pipeline(texts, max_new_tokens=14, **settings)
    assert together == [pipeline(text, max_new_tokens=14, **settings) for text in texts]
    assert together[0].to_dict()["token_ids"] == list(together[0].token_ids)
    assert pipeline([]) == []


@pytest.mark.parametrize("settings", SAMPLING)
def test_stream_adds_up_to_generate(pipeline, settings):
    for text in bundles.TEXTS[::3]:
        text = text[:8]
        answer = pipeline.generate(text, max_new_tokens=20, **settings)
        pieces = list(pipeline.stream(text, max_new_tokens=20, **settings))
        assert "".join(pieces) == answer.text
        assert all(pieces)


def test_stop_string_ends_the_answer(pipeline):
    free = pipeline("the cat", max_new_tokens=20, seed=3, do_sample=True)
    stop = next(free.text[at] for at in range(6, 16) if free.text[at].isascii())
    given = {"max_new_tokens": 20, "seed": 3, "do_sample": True, "stop": [stop, "never this"]}
    answer = pipeline("the cat", **given)
    assert answer.text == free.text[: free.text.index(stop)]
    assert answer.finish_reason == "stop"
    assert len(answer.token_ids) <= len(free.token_ids)
    assert "".join(pipeline.stream("the cat", **given)) == answer.text


def test_requests_that_do_not_fit(tmp_path):
    generator = serve.load(bundles.decoder_bundle(tmp_path / "d"))
    with pytest.raises(InputError, match="max_length of 64"):
        generator("the cat " * 60)
    with pytest.raises(InputError, match="lower max_new_tokens"):
        generator.stream("the cat", max_new_tokens=100)
    with pytest.raises(InputError, match="no tokens"):
        generator("")
    with pytest.raises(InputError, match="expected a text, got int"):
        generator([3])
    with pytest.raises(InputError, match="unknown generation setting 'beams'"):
        generator("x", beams=3)
    answerer = serve.load(bundles.seq2seq_bundle(tmp_path / "s"))
    assert answerer("the cat " * 60).truncated
    assert not answerer("the cat").truncated


def test_broken_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        TextTokenizer(tmp_path / "tokenizer.json", TokenizerSpec(max_length=3))
