"""SentencePiece models: ids against the SentencePiece library, id layouts, text with specials."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from fuzz_text import even, lines

from zoo.errors import DataError
from zoo.text import Tokenizer, languages

SHARED = Path(__file__).parents[1].parent / "shared" / "data" / "tokenizers"
REAL = {
    "t5": ("t5-small/spiece.model", "T5Tokenizer"),
    "xlnet": ("xlnet-base-cased/spiece.model", "T5Tokenizer"),
    "botchan": ("sentencepiece_test/test_model.model", "T5Tokenizer"),
    "llama2": ("llama2/tokenizer.model", "LlamaTokenizer"),
}
PLAIN = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
MADE = {
    "unigram": {},
    "casefolded": {
        "normalization_rule_name": "nmt_nfkc_cf",
        "remove_extra_whitespaces": False,
        "user_defined_symbols": ["\n", "ab", "...", "½"],
    },
    "bytes": {"byte_fallback": True, "character_coverage": 0.98},
    "phrases": {"split_by_whitespace": False, "add_dummy_prefix": False},
    "bpe": {"model_type": "bpe"},
    "bpe-bytes": {"model_type": "bpe", "byte_fallback": True, **PLAIN},
    "bpe-symbols": {
        "model_type": "bpe",
        "byte_fallback": True,
        "add_dummy_prefix": False,
        "user_defined_symbols": ["\n", "\n\n", "\u2581\u2581", "\u2581\u2581\u2581", "<table>"],
        **PLAIN,
    },
}


def train(path: Path, **options) -> Path:
    settings = {"vocab_size": 2500, "character_coverage": 0.98, "num_threads": 1} | options
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines(700, seed=3)),
        model_prefix=str(path.with_suffix("")),
        minloglevel=2,
        hard_vocab_limit=False,
        **settings,
    )
    return path


def folder(path: Path, files: dict[str, Path | dict], model_type: str | None = None, **config):
    """A checkpoint folder: copies of files, objects as JSON, `tokenizer_config.json`."""
    path.mkdir()
    for name, value in files.items():
        if isinstance(value, Path):
            shutil.copy(value, path / name)
        else:
            (path / name).write_text(json.dumps(value), encoding="utf-8")
    if config:
        (path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    if model_type:
        (path / "config.json").write_text(json.dumps({"model_type": model_type}))
    return path


@pytest.fixture(scope="module")
def unigram(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("unigram") / "m.model")


@pytest.fixture(scope="module")
def bpe(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("bpe") / "m.model", model_type="bpe")


def reference(path: Path) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def assert_same(tokenizer: Tokenizer, model: sentencepiece.SentencePieceProcessor, texts) -> None:
    """Equal ids, but where the library's own float32 sums make two cuts of a text equally good."""
    got = [e.ids for e in tokenizer.encode_raw(texts, add_special_tokens=False)]
    for text, ids in zip(texts, got, strict=True):
        wanted = model.encode(text)
        if ids != wanted:
            sums = [np.sum([model.get_score(i) for i in row]) for row in (ids, wanted)]
            assert sorted(ids) == sorted(wanted) and np.isclose(*sums, rtol=1e-6), text


@pytest.mark.parametrize("name", REAL)
def test_real_models_against_the_library(name, tmp_path):
    file, kind = REAL[name]
    if not (SHARED / file).is_file():
        pytest.skip("needs the shared tokenizer files")
    path = folder(tmp_path / "f", {"tokenizer.model": SHARED / file}, tokenizer_class=kind)
    assert_same(Tokenizer.load(path), reference(SHARED / file), lines(5500))


@pytest.mark.parametrize("name", MADE)
def test_made_models_against_the_library(name, tmp_path):
    model = train(tmp_path / "m.model", **MADE[name])
    kind = "LlamaTokenizer" if name.startswith("bpe") else "T5Tokenizer"
    path = folder(tmp_path / "f", {"tokenizer.model": model}, tokenizer_class=kind)
    tokenizer = Tokenizer.load(path)
    assert_same(tokenizer, reference(model), [t for t in lines(1500, seed=5) if t != "I\u0307"])
    for text in ("the quick brown fox", "Deutsch, English"):
        ids = tokenizer.encode(text).ids
        assert tokenizer.decode(ids) == text.lower() if name == "casefolded" else text


def test_accents_case_and_commas(tmp_path):
    """ALBERT's own steps; a comma behind a digit stands alone."""
    model = train(
        tmp_path / "m.model",
        pad_id=0,
        unk_id=1,
        bos_id=-1,
        eos_id=-1,
        control_symbols=["[CLS]", "[SEP]", "[MASK]"],
    )
    library = reference(model)
    path = folder(tmp_path / "f", {"spiece.model": model}, model_type="albert")
    tokenizer = Tokenizer.load(path)
    for text, plain in (
        ("\tDéjà   VU\n", "deja vu"),
        ("ΣΑΣ", "σασ"),
        ("``it''", '"it"'),
        ("ไทย कि", "ไทย कि"),  # vowel signs are no accents
    ):
        inner = tokenizer.encode(text).ids[1:-1]
        assert inner == library.encode(plain), text
    assert all(t == "," or "," not in t for t in tokenizer.encode("17, 9, 1,5").tokens)
    pair = tokenizer.encode("a", "b")
    assert pair.tokens[0] == "[CLS]" and pair.tokens.count("[SEP]") == 2
    assert pair.type_ids == [0] * (pair.tokens.index("[SEP]") + 1) + [1] * pair.type_ids.count(1)
    assert (
        tokenizer.uses_type_ids and tokenizer.encode("a [MASK]").ids[-2] == tokenizer.mask_token_id
    )
    cased = folder(
        tmp_path / "c", {"spiece.model": model}, "albert", do_lower_case=False, keep_accents=True
    )
    assert Tokenizer.load(cased).encode("Déjà").ids[1:-1] == library.encode("Déjà")


# Ids as fairseq and its relatives number the pieces: shift, head, what stands around, what follows
SHIFTED = {
    "xlm-roberta": ("sentencepiece.bpe.model", {}, 1, ["<s>"], ["</s>"], "<mask>"),
    "camembert": ("sentencepiece.bpe.model", {}, 4, ["<s>"], ["</s>"], "<mask>"),
    "mbart": ("sentencepiece.bpe.model", {"src_lang": "de_DE"}, 1, [], ["</s>", "de_DE"], "ar_AR"),
    "mbart50": (
        "sentencepiece.bpe.model",
        {"tokenizer_class": "MBart50Tokenizer"},
        *(1, ["en_XX"], ["</s>"], "ar_AR"),
    ),
    "nllb": (
        "sentencepiece.bpe.model",
        {"tokenizer_class": "NllbTokenizer"},
        *(1, ["eng_Latn"], ["</s>"], "ace_Arab"),
    ),
    "pegasus": ("spiece.model", {}, 103, [], ["</s>"], None),
    "mt5": ("spiece.model", {"extra_ids": 3}, 0, [], ["</s>"], "<extra_id_2>"),
}


@pytest.mark.parametrize("name", SHIFTED)
def test_shifted_ids(name, unigram, tmp_path):
    file, config, shift, before, after, behind = SHIFTED[name]
    if name in ("pegasus", "mt5"):
        unigram = train(tmp_path / "m.model", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    path = folder(tmp_path / "f", {file: unigram}, name, **config)
    tokenizer, library = Tokenizer.load(path), reference(unigram)
    unk = tokenizer.unk_token_id
    for text in filter(even, lines(300)):
        wanted = [unk if i == library.unk_id() else i + shift for i in library.encode(text)]
        encoding = tokenizer.encode(text)
        end = len(encoding) - len(after)
        assert encoding.ids[len(before) : end] == wanted
        assert encoding.tokens[: len(before)] == before and encoding.tokens[end:] == after
    assert unk == {"mt5": 2, "pegasus": 105}.get(name, 3)
    if behind is not None:
        head = {"camembert": 4, "mt5": 0}.get(name, 1)
        assert tokenizer.token_to_id(behind) == len(library) + head
    if name == "nllb":
        assert tokenizer.vocab_size == len(library) + 1 + len(languages.NLLB) + 1
    if name == "pegasus":
        assert [tokenizer.id_to_token(i) for i in (0, 1, 2, 3, 4, 104)] == [
            *("<pad>", "</s>", "<mask_1>", "<mask_2>", "<unk_2>", "<unk_102>")
        ]


def test_marian_shares_a_vocabulary(unigram, tmp_path):
    target = train(tmp_path / "t.model", vocab_size=2200, character_coverage=0.995)
    source_pieces, target_pieces = (
        [m.id_to_piece(i) for i in range(3, len(m))] for m in map(reference, (unigram, target))
    )
    names = ["</s>", "<unk>", ">>fra<<", *sorted({*source_pieces, *target_pieces}), "<pad>"]
    vocab = {name: number for number, name in enumerate(names)}
    files = {"source.spm": unigram, "target.spm": target, "vocab.json": vocab}
    path = folder(tmp_path / "f", files, "marian")
    tokenizer, library = Tokenizer.load(path), reference(unigram)
    only_target = 0
    for text in filter(even, lines(1500)):
        pieces = library.encode(text, out_type=str)
        assert tokenizer.encode(text).ids == [*(vocab.get(p, 1) for p in pieces), 0], text
        only_target += sum(p in vocab and p not in source_pieces for p in pieces)
    assert only_target > 10  # unknown to the source, yet with an id
    assert tokenizer.encode(">>fra<< x").ids[0] == vocab[">>fra<<"]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (len(vocab) - 1, 0)
    answer = reference(target).encode("Deutsch und English", out_type=str)
    assert tokenizer.decode([*(vocab[p] for p in answer), 0]) == "Deutsch und English"
    (path / "tokenizer_config.json").write_text(json.dumps({"separate_vocabs": True}))
    with pytest.raises(DataError, match="one vocabulary"):
        Tokenizer.load(path)


def test_m2m100(bpe, tmp_path):
    library = reference(bpe)
    pieces = sorted(library.id_to_piece(i) for i in range(3, len(library)))
    vocab = {t: i for i, t in enumerate(["<s>", "<pad>", "</s>", "<unk>", *pieces])}
    files = {"sentencepiece.bpe.model": bpe, "vocab.json": vocab}
    tokenizer = Tokenizer.load(folder(tmp_path / "f", files, "m2m_100", src_lang="fr"))
    first = len(vocab)
    assert tokenizer.token_to_id("__af__") == first
    assert tokenizer.vocab_size == first + len(languages.M2M100)
    for text in lines(300):
        wanted = [vocab.get(p, 3) for p in library.encode(text, out_type=str)]
        french = first + languages.M2M100.index("fr")
        assert tokenizer.encode(text).ids == [french, *wanted, 2]


def test_llama_around_special_tokens(tmp_path):
    model = train(tmp_path / "m.model", **MADE["bpe-bytes"])
    library = reference(model)
    old = Tokenizer.load(folder(tmp_path / "old", {"tokenizer.model": model}, "llama"))
    new = Tokenizer.load(
        folder(
            tmp_path / "new",
            {"tokenizer.model": model},
            tokenizer_class="LlamaTokenizer",
            legacy=False,
            add_eos_token=True,
            pad_token="<pad>",
        )
    )
    assert old.encode("a").ids == [1, *library.encode("a")]
    assert old.encode("a", "b").ids == [1, *library.encode("a"), 1, *library.encode("b")]
    assert new.encode("a").ids == [1, *library.encode("a"), 2]
    assert new.pad_token_id == len(library)
    # Each part has a space before it, or only the text as a whole.
    assert old.encode("</s>a</s> b").tokens == [
        "<s>",
        "</s>",
        "\u2581a",
        "</s>",
        "\u2581",
        "\u2581b",
    ]
    assert new.encode("</s>a</s> b").tokens == ["<s>", "</s>", "a", "</s>", "\u2581b", "</s>"]
    texts = [text for text in lines(400) if "\u2581" not in text]
    for text in texts:
        assert new.encode(text).ids[1:-1] == library.encode(text)
    for text in ("  two  spaces ", "line\nend", "日本 👍"):
        assert new.decode(new.encode(text).ids) == text


def test_t5_sentinels(unigram, tmp_path):
    tokenizer = Tokenizer.load(folder(tmp_path / "f", {"spiece.model": unigram}, "t5"))
    size = len(reference(unigram))
    assert tokenizer.token_to_id("<extra_id_0>") == size + 99
    assert tokenizer.token_to_id("<extra_id_99>") == size
    ids = tokenizer.encode("a <extra_id_0> b").ids
    assert size + 99 in ids and ids[-1] == tokenizer.eos_token_id


def test_xlnet_ends_with_its_class_token(tmp_path):
    symbols = ["<cls>", "<sep>", "<pad>", "<mask>", "<eod>"]
    model = train(
        tmp_path / "m.model", control_symbols=symbols, user_defined_symbols=["<eop>", ".", "("]
    )
    tokenizer = Tokenizer.load(folder(tmp_path / "f", {"spiece.model": model}))
    pair = tokenizer.encode("a", "b")
    assert pair.tokens[-2:] == ["<sep>", "<cls>"] and pair.type_ids[-2:] == [1, 2]
    assert tokenizer.encode("a").type_ids[-2:] == [0, 2]
    text = "a.b (c) d"
    assert tokenizer.encode(text).ids[:-2] == reference(model).encode(text)


def test_deberta_splits_punctuation_first(tmp_path):
    names = {"pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]"}
    model = train(tmp_path / "m.model", pad_id=0, bos_id=1, eos_id=2, unk_id=3, **names)
    library = reference(model)
    path = folder(tmp_path / "f", {"spm.model": model}, "deberta-v2", split_by_punct=True)
    tokenizer = Tokenizer.load(path)
    assert tokenizer.mask_token_id == len(library)
    wanted = [i for part in ("a b", ",", " c", "-", "d") for i in library.encode(part)]
    assert tokenizer.encode("a b, c-d").ids == [1, *wanted, 2]


def test_broken_and_unsupported_models(unigram, tmp_path):
    with pytest.raises(DataError, match="no unknown piece"):
        Tokenizer.load(folder(tmp_path / "p", {"spiece.model": unigram}, "pegasus"))
    data = unigram.read_bytes()
    unknown = folder(tmp_path / "l", {"sentencepiece.bpe.model": unigram}, "mbart", src_lang="xx")
    with pytest.raises(DataError, match="'xx', which stands around"):
        Tokenizer.load(unknown)
    for name, content, message in (
        ("cut", data[: len(data) // 2], "not a SentencePiece model"),
        ("tiktoken", b"IQ== 0\nIg== 1\n", "not a SentencePiece model"),
        ("word", None, "model of type 3"),
    ):
        path = tmp_path / name
        path.mkdir()
        if content is None:
            train(path / "tokenizer.model", model_type="word")
        else:
            (path / "tokenizer.model").write_bytes(content)
        with pytest.raises(DataError, match=message):
            Tokenizer.load(path)
