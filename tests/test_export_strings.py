"""Tokenizers as TensorFlow operators: ids and texts are the library's, in many scripts."""

import json
import random
from functools import cache
from pathlib import Path

import fuzz_text
import numpy as np
import pytest
import tensorflow as tf
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

import zoo
from export.strings.codes import by_length
from export.strings.decoder import TensorDecoder
from export.strings.errors import InexactError
from export.strings.tokenizer import TensorTokenizer
from zoo.text.kinds import CLASSES

SHARED = Path(__file__).parents[2] / "shared/data/tokenizers"
MANY, FEW = 20_000, 400
SPECIAL = "[MASK] <s></s> <pad>x [MASK]  [SEP]a <mask> <unk>.<0x41>"

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def lines(count: int) -> list[str]:
    """Lines in many scripts; of every four three are cut, which costs less and tests the same."""
    found = [text[: 40 if i % 4 else None] for i, text in enumerate(fuzz_text.lines(count - 1))]
    return [*found, SPECIAL]


@cache
def _state(kind: str, settings: str) -> str:
    made = zoo.Tokenizer.train(kind, fuzz_text.lines(1000, seed=1), **json.loads(settings))
    return made.backend.to_str()


def trained(kind: str, **settings) -> zoo.Tokenizer:
    """A tokenizer of the test's own, trained once."""
    return zoo.Tokenizer(Tokenizer.from_str(_state(kind, json.dumps(settings))))


def ids_of(tokenizer: zoo.Tokenizer, texts: list[str]) -> list[list[int]]:
    function = tf.function(
        TensorTokenizer(tokenizer).ids,
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )
    found = []
    for begin in range(0, len(texts), 2000):
        found += function(tf.constant(texts[begin : begin + 2000])).to_list()
    return found


def equal(tokenizer: zoo.Tokenizer, texts: list[str]) -> None:
    expected = [row.ids for row in tokenizer.encode_raw(texts, add_special_tokens=False)]
    found = ids_of(tokenizer, texts)
    wrong = [i for i, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b]
    assert not wrong, (len(wrong), texts[wrong[0]], found[wrong[0]], expected[wrong[0]])
    assert sum(map(len, expected)) > len(texts)


TRAINED = {
    "wordpiece": {"vocab_size": 2500},
    "bpe": {"vocab_size": 2500},
    "unigram": {"vocab_size": 2500},
}


@pytest.mark.parametrize("kind", TRAINED)
def test_ids_of_twenty_thousand_lines(kind) -> None:
    equal(trained(kind, **TRAINED[kind]), lines(MANY))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("byte", {}),
        ("char", {"normalization": "nfkc+whitespace+edges"}),
        ("bpe", {"vocab_size": 900, "normalization": "nfc", "lowercase": True}),
        ("unigram", {"vocab_size": 900, "byte_fallback": False, "normalization": "nfd"}),
        ("wordpiece", {"vocab_size": 900, "normalization": "strip_accents+nfkd"}),
    ],
)
def test_ids_with_other_normalisations(kind, settings) -> None:
    equal(trained(kind, **settings), lines(FEW))


def with_words(pre_tokenizer, normalizer=None, **model) -> zoo.Tokenizer:
    """A byte-level BPE whose words are cut by `pre_tokenizer`."""
    backend = trained("bpe", vocab_size=1500).backend
    state = json.loads(backend.to_str())
    state["model"] |= model
    backend = Tokenizer.from_str(json.dumps(state))
    backend.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        backend.normalizer = normalizer
    return zoo.Tokenizer(backend)


def split_bytes(pattern: str, behavior: str = "isolated", invert: bool = False):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior, invert),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        split_bytes(LLAMA3),
        split_bytes(CLASSES["Qwen2Tokenizer"].words, "removed", True),
        split_bytes(r"(?<=\p{L})\d|[.,](?=\s)", "merged_with_previous"),
        split_bytes(r"\s|[a-f]{2,3}?", "merged_with_next"),
        split_bytes(r"[\s\d]", "contiguous"),
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.Punctuation(),
                pre_tokenizers.ByteLevel(add_prefix_space=True),
            ]
        ),
    ],
    ids=["llama3", "qwen2", "previous", "next", "contiguous", "digits"],
)
def test_words_are_cut_alike(pre_tokenizer) -> None:
    equal(with_words(pre_tokenizer), lines(FEW))


def test_whole_words_before_merges() -> None:
    equal(with_words(split_bytes(LLAMA3), ignore_merges=True), lines(FEW))


@pytest.mark.parametrize(
    "flags",
    [(True, False, True, False), (False, True, None, True), (False, False, False, True)],
)
def test_flags_of_bert(flags) -> None:
    tokenizer = trained("wordpiece", vocab_size=900)
    tokenizer.backend.normalizer = normalizers.BertNormalizer(*flags)
    equal(tokenizer, lines(FEW))


def test_words_that_are_long_or_unknown() -> None:
    vocab = {"[UNK]": 0, "a": 1, "##a": 2, "##b": 3, "ab": 4, "##": 5, "-": 6}
    backend = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=5))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    texts = ["aaaaa", "aaaaaa", "abab ab", "ba a", "a-b a", "##a", "aé", "é" * 6, "", "  "]
    equal(zoo.Tokenizer(backend), texts * 3)


def test_added_tokens_take_spaces_and_normal_forms() -> None:
    tokenizer = trained("wordpiece", vocab_size=900, lowercase=True)
    tokenizer.backend.add_special_tokens([AddedToken("<m>", lstrip=True, normalized=False)])
    tokenizer.backend.add_tokens([AddedToken("Héllo", normalized=True), AddedToken("Hé")])
    texts = ["a  <m> b", "<m><m>", " <m>", "héllo HÉLLO Hé hé", "x[MASK]y [CLS]", "Hello <M>"]
    draw = random.Random(1)
    parts = ["<m>", " ", "héLLO", "[SEP]", "é", "a", "  ", "hÉ", "\n"]
    texts += ["".join(draw.choices(parts, k=12)) for _ in range(300)]
    equal(tokenizer, texts)


def test_words_with_affixes() -> None:
    vocab = {c: i for i, c in enumerate(["<unk>", "a", "b", "a</w>", "b</w>", "ab", "ab</w>"])}
    merges = [("a", "b</w>"), ("a", "b")]
    for fuse in (True, False):
        backend = Tokenizer(
            models.BPE(vocab, merges, unk_token="<unk>", end_of_word_suffix="</w>", fuse_unk=fuse)
        )
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        texts = ["ab", "aba", "abab ba", "xx a", "axxb xab", "", "a", "é"]
        equal(zoo.Tokenizer(backend), texts)


def test_of_equally_good_pieces_the_library_s() -> None:
    rows = [("<unk>", 0.0), ("a", -1.0), ("aa", -2.0), ("aaa", -3.0), ("b", -1.1), ("ab", -2.1)]
    backend = Tokenizer(models.Unigram([*rows, ("ba", -2.1), ("xy", -50.0)], 0, False))
    draw = random.Random(0)
    texts = ["".join(draw.choices("aabxy", k=draw.randint(0, 40))) for _ in range(400)]
    equal(zoo.Tokenizer(backend), [*texts, "a" * 200, "xy", "axyzb"])


_BERT = ("[SEP]", 3), ("[CLS]", 2)
PROCESSORS = {
    "none": processors.Sequence([]),
    "template": processors.TemplateProcessing(
        "[CLS] $A [SEP]",
        "[CLS] $A [SEP] $B:1 [SEP]:1 [SEP]:1",
        list(_BERT),
    ),
    "roberta": processors.RobertaProcessing(*_BERT),
    "bert": processors.BertProcessing(*_BERT),
}


@pytest.mark.parametrize("processor", PROCESSORS)
def test_special_tokens_pairs_and_cuts(processor) -> None:
    tokenizer = trained("wordpiece", vocab_size=900)
    tokenizer.backend.post_processor = PROCESSORS[processor]
    made = TensorTokenizer(tokenizer)
    draw = random.Random(3)
    texts = fuzz_text.lines(FEW)[60:180]
    pairs = draw.sample(texts, len(texts))
    for length in (6, 24, None):
        for second in (None, pairs):
            expected = tokenizer.encode_raw(texts, second, length)
            given = None if second is None else tf.constant(second)
            found = made.encode(tf.constant(texts), given, length)
            ids, kinds = found["input_ids"].numpy(), found["token_type_ids"].numpy()
            sizes = found["attention_mask"].numpy().sum(axis=1)
            for row, kind, size, encoding in zip(ids, kinds, sizes, expected, strict=True):
                assert row[:size].tolist() == encoding.ids
                assert kind[:size].tolist() == encoding.type_ids
            assert ids.shape[1] == max(map(len, expected))


def test_bytes_that_are_no_text_are_replaced() -> None:
    tokenizer = trained("byte")
    found = TensorTokenizer(tokenizer).ids(tf.constant([b"a\xff\xfeb", b"\xe2\x82", b"ok"]))
    texts = ["a\ufffd\ufffdb", "\ufffd", "ok"]
    expected = [row.ids for row in tokenizer.encode_raw(texts, add_special_tokens=False)]
    assert found.to_list() == expected


def texts_equal(tokenizer: zoo.Tokenizer, more: list[list[int]]) -> None:
    draw = np.random.default_rng(0)
    rows = [row.ids for row in tokenizer.encode_raw(lines(FEW))]
    sizes = draw.integers(0, 30, FEW)
    rows += [draw.integers(0, tokenizer.vocab_size, size).tolist() for size in sizes] + more
    rows += [[-100, 5, tokenizer.vocab_size + 3], []]
    decoder = TensorDecoder(tokenizer)
    flat = tf.constant([number for row in rows for number in row], tf.int32)
    found = decoder(by_length(flat, tf.constant([len(row) for row in rows]))).numpy()
    for row, text, expected in zip(rows, found, tokenizer.decode_batch(rows), strict=True):
        assert text.decode() == expected, row


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram", "char", "byte"])
def test_texts_of_ids(kind) -> None:
    tokenizer = trained(kind, **({} if kind in ("char", "byte") else {"vocab_size": 900}))
    draw = random.Random(2)
    single = [tokenizer.token_to_id(f"<0x{value:02X}>") for value in range(256)]
    if single[0] is None:
        single = list(range(min(260, tokenizer.vocab_size)))
    texts_equal(tokenizer, [draw.choices(single, k=draw.randint(1, 9)) for _ in range(FEW)])


@pytest.mark.parametrize(
    "decoder",
    [
        None,
        decoders.BPEDecoder("</w>"),
        decoders.Metaspace(),
        decoders.WordPiece(cleanup=True),
        decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 2, 0)]),
    ],
    ids=["none", "bpe", "metaspace", "wordpiece", "strip"],
)
def test_texts_of_other_decoders(decoder) -> None:
    words = ["a", "▁b", "c▁▁d", "e</w>", "##f", " n't", ".", "▁", "  ", "'s", " do not", "<0x41>"]
    state = json.loads(Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)})).to_str())
    backend = Tokenizer.from_str(json.dumps(state))
    if decoder is not None:
        backend.decoder = decoder
    tokenizer = zoo.Tokenizer(backend)
    draw = random.Random(4)
    rows = [draw.choices(range(len(words)), k=draw.randint(0, 9)) for _ in range(400)]
    made = TensorDecoder(tokenizer)
    flat = tf.constant([number for row in rows for number in row], tf.int32)
    found = made(by_length(flat, tf.constant([len(row) for row in rows]))).numpy()
    assert [text.decode() for text in found] == tokenizer.decode_batch(rows)


def test_what_cannot_be_exact_is_refused() -> None:
    tokenizer = trained("bpe", vocab_size=600)
    for pre_tokenizer in (
        split_bytes(r"(?<=ab)c"),
        split_bytes(r"a++b"),
        split_bytes(r"(?=a)\w*"),
        pre_tokenizers.UnicodeScripts(),
    ):
        tokenizer.backend.pre_tokenizer = pre_tokenizer
        with pytest.raises(InexactError):
            TensorTokenizer(tokenizer)
    tokenizer.backend.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.backend.add_tokens([AddedToken("word", single_word=True)])
    with pytest.raises(InexactError, match="word of its own"):
        TensorTokenizer(tokenizer)
    tokenizer.backend.decoder = decoders.CTC()
    with pytest.raises(InexactError, match="CTC"):
        TensorDecoder(tokenizer)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared")
@pytest.mark.parametrize(
    ("name", "model_type"),
    [
        ("bert-base-uncased", "bert"),
        ("minimind", ""),
        ("llama2", "llama"),
        ("xlnet-base-cased", "xlnet"),
    ],
)
def test_published_tokenizers(name, model_type, tmp_path) -> None:
    for file in (SHARED / name).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    if model_type:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    equal(zoo.Tokenizer.load(tmp_path), lines(FEW))
