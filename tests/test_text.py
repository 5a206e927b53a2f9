"""Tokenizers: round trips in many scripts, offsets, templates, files, determinism, errors."""

import hashlib
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from zoo.errors import ConfigError, DataError
from zoo.text import Tokenizer, join_words
from zoo.text.training import TRAINERS, byte_characters

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data" / "tokenizers"
TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "  two spaces in front, and  two inside, one after ",
    "你好，世界。今天是2024年1月5日。",
    "日本語のテスト、がぎぐげご。",
    "สวัสดีชาวโลก ภาษาไทยไม่มีช่องว่าง",
    "مرحبا بالعالم، كيف حالك؟",
    "emoji 😀 👩‍👩‍👧 🇩🇪, combining e\u0301",
    "line\nend\ttab\r\nwindows",
    "",
]
CORPUS = TEXTS * 3 + ["brown dogs and quick foxes jump quickly over lazier dogs"] * 3
KINDS = list(TRAINERS)
EXACT = [kind for kind in KINDS if kind != "wordpiece"]
SIZES = {"wordpiece": 300, "bpe": 320, "unigram": 600, "char": None, "byte": None}
TEMPLATES = ["encoder", "seq2seq", "decoder"]


def train(kind: str, template: str = "encoder", **options) -> Tokenizer:
    return Tokenizer.train(kind, CORPUS, SIZES[kind], template=template, **options)


@pytest.fixture(scope="module", params=KINDS)
def trained(request) -> Tokenizer:
    return train(request.param)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", EXACT)
def test_decoding_gives_the_text_back(kind, template):
    tokenizer = train(kind, template)
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


@pytest.mark.parametrize("kind", ["bpe", "byte", "unigram"])
def test_text_of_unseen_characters_survives(kind):
    tokenizer = train(kind)
    text = "Ελληνικά 한국어 \u0950 \U0001f9ff"
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.unk_token_id not in ids


@pytest.mark.parametrize("kind", ["wordpiece", "char"])
def test_unseen_characters_are_unknown(kind):
    tokenizer = train(kind)
    assert tokenizer.encode("Ω", max_length=9).ids[1] == tokenizer.unk_token_id
    plain = train("unigram", byte_fallback=False)
    assert plain.unk_token_id in plain.encode("Ω").ids


def test_wordpiece_writes_chinese_without_spaces():
    tokenizer = train("wordpiece")
    assert tokenizer.decode(tokenizer.encode("你好，世界。").ids) == "你好，世界。"
    assert tokenizer.decode(tokenizer.encode("lazy dog").ids) == "lazy dog"
    assert tokenizer.encode("世界").tokens == ["[CLS]", "世", "界", "[SEP]"]


def test_offsets_cut_the_original_text(trained):
    for text in TEXTS:
        encoding = trained.encode(text)
        covered = set()
        for (start, end), sequence in zip(encoding.offsets, encoding.sequence_ids, strict=True):
            assert 0 <= start <= end <= len(text)
            if sequence is not None:
                covered.update(range(start, end))
        # Every character that is not white space belongs to a token.
        assert {i for i, c in enumerate(text) if not c.isspace()} <= covered
    encoding = trained.encode("dog fox")
    words = [
        "dog fox"[start:end].strip()
        for (start, end), sequence in zip(encoding.offsets, encoding.sequence_ids, strict=True)
        if sequence is not None
    ]
    assert "".join(words) == "dogfox"


def test_offsets_after_lowercasing_point_into_the_original():
    tokenizer = train("wordpiece", lowercase=True)
    encoding = tokenizer.encode("The Quick fox")
    pieces = ["The Quick fox"[a:b] for a, b in encoding.offsets]
    assert "".join(pieces) == "TheQuickfox"
    assert tokenizer.encode("THE QUICK FOX").ids == tokenizer.encode("the quick fox").ids


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("template", "before", "between", "after"),
    [
        ("encoder", ["[CLS]"], ["[SEP]"], ["[SEP]"]),
        ("seq2seq", [], ["</s>"], ["</s>"]),
        ("decoder", [], [], []),
    ],
)
def test_templates(kind, template, before, between, after):
    tokenizer = train(kind, template)
    a = tokenizer.encode_batch(["fox"], add_special_tokens=False)[0].tokens
    b = tokenizer.encode_batch(["dog"], add_special_tokens=False)[0].tokens
    pair = tokenizer.encode("fox", "dog")
    assert tokenizer.encode("fox").tokens == [*before, *a, *between]
    assert pair.tokens == [*before, *a, *between, *b, *after]
    second = int(template == "encoder")
    first = len(before) + len(a) + len(between)
    if template != "decoder":  # without a template the library numbers the texts itself
        assert pair.type_ids == [0] * first + [second] * (len(pair) - first)
    assert tokenizer.uses_type_ids == bool(second)
    assert ("token_type_ids" in tokenizer("fox", "dog")) == bool(second)


def test_special_token_roles():
    encoder, seq2seq, decoder = (train("bpe", template) for template in TEMPLATES)
    names = ("pad", "unk", "cls", "sep", "mask", "bos", "eos")
    ids = [[getattr(t, f"{n}_token_id") for n in names] for t in (encoder, seq2seq, decoder)]
    assert ids == [
        [0, 1, 2, 3, 4, None, None],
        [0, 2, None, None, None, 3, 1],
        [0, None, None, None, None, 1, 1],
    ]
    extra = train("char", "decoder", special_tokens=["<task>", "<pad>"])
    assert [extra.id_to_token(i) for i in range(4)] == ["<pad>", "<|endoftext|>", "<unk>", "<task>"]
    assert extra.encode("<task>dog").ids[0] == 3
    assert extra.decode(extra.encode("<task>dog").ids) == "dog"
    assert extra.decode([3, -100], skip_special_tokens=False) == "<task>"


def test_truncation():
    tokenizer = train("char")
    assert tokenizer.encode("abcdef", max_length=5).tokens == ["[CLS]", "a", "b", "c", "[SEP]"]
    question, context = "fox", "the lazy dog"
    both = tokenizer.encode(question, context, max_length=10)
    assert len(both) == 10
    windows = tokenizer.encode(question, context, max_length=10, truncation="only_second", stride=1)
    windows = [windows, *windows.overflow]
    parts = []
    for window in windows:
        assert window.tokens[:5] == ["[CLS]", "f", "o", "x", "[SEP]"]
        spans = [o for o, s in zip(window.offsets, window.sequence_ids, strict=True) if s == 1]
        parts.append(context[spans[0][0] : spans[-1][1]])
    assert parts[0] + "".join(part[1:] for part in parts[1:]) == context
    assert all(a[-1] == b[0] for a, b in pairwise(parts))
    # The settings of one call do not stick to the next one, nor get into the file.
    assert len(tokenizer.encode("abcdef")) == 8
    assert json.loads(tokenizer.backend.to_str())["truncation"] is None


def test_padding():
    tokenizer = train("char")
    texts = ["a", "fox", ""]
    rows = tokenizer(texts)
    assert {k: (v.shape, v.dtype) for k, v in rows.items()} == {
        name: ((3, 5), np.dtype(np.int32))
        for name in ("input_ids", "attention_mask", "token_type_ids")
    }
    assert rows["attention_mask"].sum(1).tolist() == [3, 5, 2]
    assert (rows["input_ids"][rows["attention_mask"] == 0] == tokenizer.pad_token_id).all()
    assert tokenizer(texts, pad_to_multiple_of=4)["input_ids"].shape == (3, 8)
    assert tokenizer(texts, padding="max_length", max_length=7)["input_ids"].shape == (3, 7)
    assert tokenizer(texts, max_length=4)["input_ids"].shape == (3, 4)
    assert [len(row) for row in tokenizer(texts, padding=False)["input_ids"]] == [3, 5, 2]
    assert tokenizer([])["input_ids"].shape == (0, 0)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("kind", KINDS)
def test_files_reproduce_the_ids(kind, template, tmp_path):
    tokenizer = train(kind, template, normalization="nfc", model_max_length=77)
    tokenizer.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["model_max_length"] == 77
    again = Tokenizer.load(tmp_path)
    plain = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert again.special_tokens == tokenizer.special_tokens
    assert again.uses_type_ids == tokenizer.uses_type_ids
    assert (again.model_max_length, again.vocab_size) == (77, tokenizer.vocab_size)
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        assert again.encode(text).ids == plain.encode(text).ids == ids
        assert plain.decode(ids) == tokenizer.decode(ids)
        assert plain.encode("fox", text).ids == tokenizer.encode("fox", text).ids
    alone = tmp_path / "alone"
    alone.mkdir()
    (tmp_path / "tokenizer.json").rename(alone / "tokenizer.json")
    guessed = Tokenizer.load(alone / "tokenizer.json")
    assert guessed.pad_token_id == tokenizer.pad_token_id
    assert guessed.eos_token_id == tokenizer.eos_token_id
    assert guessed.uses_type_ids == tokenizer.uses_type_ids


def test_vocabularies_are_dense_and_in_bounds(trained):
    vocab = trained.backend.get_vocab()
    assert sorted(vocab.values()) == list(range(len(vocab))) == list(range(trained.vocab_size))
    kind = type(trained.backend.model).__name__
    assert trained.vocab_size <= 600, kind


def test_byte_ids_are_the_bytes():
    tokenizer = train("byte")
    assert [i - 5 for i in tokenizer.encode("é漢").ids[1:-1]] == list("é漢".encode())
    assert tokenizer.vocab_size == 261
    assert sorted(byte_characters()) == sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())


_DIGEST = """
import hashlib, sys
sys.path[:0] = [{tests!r}, {root!r}]
from test_text import KINDS, train
for kind in KINDS:
    print(hashlib.sha256(train(kind).backend.to_str().encode()).hexdigest())
"""


def test_training_is_deterministic_across_processes():
    """The library hashes with a new key in each process, so repetition in one shows nothing."""
    code = _DIGEST.format(tests=str(ROOT / "tests"), root=str(ROOT))
    here = [hashlib.sha256(train(k).backend.to_str().encode()).hexdigest() for k in KINDS]
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        run = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.split() == here


@pytest.mark.parametrize(
    ("names", "text", "same"),
    [
        ("nfc", "e\u0301", "é"),
        ("nfkc", "ＡＢ①", "AB1"),
        ("lowercase", "DOG", "dog"),
        ("strip_accents", "résumé", "resume"),
        (["nfkc", "whitespace"], " a \n\u3000b ", "a b"),
        ("nfkc+lowercase", "ＡＢ", "ab"),
    ],
)
def test_normalization(names, text, same):
    for kind in ("bpe", "unigram"):
        tokenizer = train(kind, normalization=names)
        assert tokenizer.encode(text).ids == tokenizer.encode(same).ids


def test_edges_are_spaces_at_both_ends():
    tokenizer = train("char", normalization="whitespace+edges")
    assert tokenizer.encode("\na b ").tokens[1:-1] == [" ", "a", " ", "b", " "]
    assert tokenizer.encode("a b").ids == tokenizer.encode(" a\n b").ids
    with pytest.raises(ConfigError, match=r"does not go with kind='bpe'"):
        train("bpe", normalization="edges")


def test_small_room_for_a_big_alphabet():
    """Rare characters are given up, the size is kept."""
    han = [
        "".join(chr(0x4E00 + i) for i in range(start, start + 40)) for start in range(0, 2000, 40)
    ]
    han += [han[0]] * 20
    han += ["".join(chr(0x0E01 + i % 40) for i in range(start, start + 9)) for start in range(40)]
    for kind in ("wordpiece", "unigram", "char"):
        tokenizer = Tokenizer.train(kind, han, vocab_size=400)
        assert tokenizer.vocab_size <= 400, kind
        kept = tokenizer.encode(han[0]).ids
        assert tokenizer.unk_token_id not in kept


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: Tokenizer.train("wordpeice", ["a"]), ConfigError, "'wordpiece'"),
        (lambda: Tokenizer.train("bpe", ["a"], template="decode"), ConfigError, "'decoder'"),
        (
            lambda: Tokenizer.train("bpe", ["a"], normalization="lowercas"),
            ConfigError,
            "'lowercase'",
        ),
        (lambda: Tokenizer.train("bpe", ["a"], vocab_size=100), ConfigError, "at least 261"),
        (lambda: Tokenizer.train("byte", ["a"], vocab_size=100), ConfigError, "at least 261"),
        (lambda: Tokenizer.train("unigram", ["a"], vocab_size=200), ConfigError, "byte_fallback"),
        (lambda: Tokenizer.train("char", ["a"], vocab_size=5), ConfigError, "at least 6"),
        (lambda: Tokenizer.train("char", []), DataError, "corpus is empty"),
        (lambda: Tokenizer.train("char", ["", " "]), DataError, "corpus is empty"),
        (lambda: Tokenizer.train("char", "text"), DataError, "one string"),
        (lambda: Tokenizer.train("char", ["a", 3]), DataError, "text 1 is a int"),
        (lambda: Tokenizer.load("/nowhere/tokenizer.json"), DataError, "no such file"),
        (lambda: Tokenizer.load(ROOT / "zoo" / "text"), DataError, "no tokenizer here"),
        (lambda: Tokenizer.load(ROOT / "pyproject.toml"), DataError, "no tokenizer here"),
        (lambda: train("char")(["a", None]), DataError, "item 1 is None"),
        (lambda: train("char")(["\ud800"]), DataError, "surrogate"),
        (lambda: train("char")(["a"], ["b", "c"]), DataError, "1 texts but 2 pairs"),
        (lambda: train("char").encode("a", max_length=2), ConfigError, "at least 3"),
        (lambda: train("char")("a", padding="max_length"), ConfigError, "needs max_length"),
        (lambda: train("char")("a", padding="left"), ConfigError, "padding='left'"),
    ],
)
def test_errors_say_what_to_do(call, kind, message):
    with pytest.raises(kind) as caught:
        call()
    assert message in str(caught.value)


def test_broken_files(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="cannot be read"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[")
    with pytest.raises(DataError, match="not readable as JSON"):
        Tokenizer.load(tmp_path)


def test_join_words():
    text, spans = join_words(["I", "like", "日本", "語", "very", "", "much"])
    assert text == "I like 日本語 very much"
    assert [text[a:b] for a, b in spans] == ["I", "like", "日本", "語", "very", "", "much"]
    assert join_words([]) == ("", [])


def test_importing_text_loads_no_framework():
    code = "import sys, zoo.text, zoo.data; zoo.text.Tokenizer; zoo.data.read; zoo.data.batches; "
    code += "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def real(name: str) -> Tokenizer:
    if not (SHARED / name).is_dir():
        pytest.skip(f"no {name} here")
    return Tokenizer.load(SHARED / name)


def test_bert_base_chinese():
    tokenizer = real("bert-base-chinese")
    assert (tokenizer.vocab_size, tokenizer.cls_token_id, tokenizer.mask_token_id) == (
        21128,
        101,
        103,
    )
    encoding = tokenizer.encode("今天天气很好", "Hello 世界")
    assert encoding.ids[:7] == [101, 791, 1921, 1921, 3698, 2523, 1962]
    assert encoding.type_ids == [0] * 8 + [1] * (len(encoding) - 8)


def test_bert_vocabularies_tell_their_case():
    assert real("bert-base-uncased").encode("Hello World").ids == [101, 7592, 2088, 102]
    assert real("bert-base-cased").encode("Hello World").ids == [101, 8667, 1291, 102]


def test_roberta_from_its_older_files():
    tokenizer = real("roberta-base")
    assert tokenizer.encode("Hello world").ids == [0, 31414, 232, 2]
    assert (tokenizer.pad_token_id, tokenizer.mask_token_id) == (1, 50264)
    assert not tokenizer.uses_type_ids


def test_minimind_keeps_its_configuration(tmp_path):
    tokenizer = real("minimind")
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    text = "你好，世界 hello"
    assert again.encode(text).ids == tokenizer.encode(text).ids
    assert again.decode(again.encode(text).ids) == text
    assert again.special_tokens == tokenizer.special_tokens
