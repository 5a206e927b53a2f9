"""Checkpoint folders' tokenizer files: vocab.txt, vocab.json with merges.txt, roles, saving."""

import gzip
import json
import shutil
import unicodedata
from pathlib import Path

import pytest
import tokenizers
from fuzz_text import lines
from tokenizers import models, normalizers, pre_tokenizers, trainers

from zoo.errors import DataError
from zoo.text import Tokenizer

SHARED = Path(__file__).parents[1].parent / "shared" / "data" / "tokenizers"
WORDS = ["un", "##aff", "##able", "hello", "world", "caf", "##é", "cafe", "Hello", ",", ".", "a"]
BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]", *WORDS]
CORPUS = ["the quick brown fox jumps over the lazy dog", "low lower lowest 2024 2025", "it's café"]


def folder(path: Path, files: dict[str, object], model_type: str | None = None, **config) -> Path:
    """A checkpoint folder; strings are written as they are, other objects as JSON."""
    path.mkdir()
    if model_type:
        files = files | {"config.json": {"model_type": model_type}}
    if config:
        files = files | {"tokenizer_config.json": config}
    for name, value in files.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        (path / name).write_text(text, encoding="utf-8")
    return path


def vocabulary(*names: str) -> str:
    return "\n".join(names) + "\n"


def merges_of(backend: tokenizers.Tokenizer) -> dict[str, object]:
    model = json.loads(backend.to_str())["model"]
    lines_ = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    return {"vocab.json": model["vocab"], "merges.txt": vocabulary(*lines_)}


@pytest.fixture(scope="module")
def byte_files() -> dict[str, object]:
    """A byte-level BPE with the special tokens of RoBERTa and of GPT-2."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS * 3, trainer)
    return merges_of(backend)


def names(tokenizer: Tokenizer, text: str, pair: str | None = None) -> list[str | None]:
    return [tokenizer.id_to_token(number) for number in tokenizer.encode(text, pair).ids]


def saved(tokenizer: Tokenizer, path: Path) -> dict[str, object]:
    tokenizer.save(path)
    again = Tokenizer.load(path)
    texts = lines(150)
    assert [e.ids for e in again.encode_raw(texts)] == [e.ids for e in tokenizer.encode_raw(texts)]
    assert again.special_tokens == tokenizer.special_tokens
    return json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))


# vocab.txt


def test_bert_options_and_types(tmp_path):
    files = {"vocab.txt": vocabulary(*BERT)}
    plain = Tokenizer.load(folder(tmp_path / "a", files, "bert", do_lower_case=True))
    assert names(plain, "Café unaffable", "a") == [
        *("[CLS]", "cafe", "un", "##aff", "##able", "[SEP]", "a", "[SEP]")
    ]
    assert plain.encode("a", "a").type_ids == [0, 0, 0, 1, 1] and plain.uses_type_ids
    cased = folder(tmp_path / "b", files, "bert", do_lower_case=False, strip_accents=True)
    assert names(Tokenizer.load(cased), "Hello Café")[1:-1] == ["Hello", "[UNK]"]
    config = saved(plain, tmp_path / "s")
    assert config["tokenizer_class"] == "BertTokenizer" and config["do_lower_case"] is True
    distil = Tokenizer.load(folder(tmp_path / "c", files, "distilbert", do_lower_case=True))
    assert not distil.uses_type_ids
    assert saved(distil, tmp_path / "t")["tokenizer_class"] == "DistilBertTokenizer"


@pytest.mark.parametrize("model_type", ["mpnet", None])
def test_mpnet_has_a_template_of_its_own(model_type, tmp_path):
    files = {"vocab.txt": vocabulary("<s>", "<pad>", "</s>", "[UNK]", *WORDS, "<mask>")}
    tokenizer = Tokenizer.load(folder(tmp_path / "f", files, model_type))
    shape = ["<s>", "hello", "</s>", "</s>", "a", "</s>"]
    assert names(tokenizer, "hello", "a") == shape
    assert set(tokenizer.encode("hello", "a").type_ids) == {0} and not tokenizer.uses_type_ids
    masked = tokenizer.encode("hello <mask>.")
    assert masked.ids[2] == tokenizer.mask_token_id and masked.offsets[2] == (5, 12)


def test_folders_number_and_rename_tokens(tmp_path):
    files = {"vocab.txt": vocabulary(*BERT), "added_tokens.json": {"[B]": 20, "[A]": 18}}
    tokenizer = Tokenizer.load(folder(tmp_path / "a", files, "bert"))
    assert names(tokenizer, "a [B] [A]") == ["[CLS]", "a", "[B]", "[A]", "[SEP]"]
    assert (tokenizer.token_to_id("[A]"), tokenizer.token_to_id("[B]")) == (18, 20)
    decoder = {"5": {"content": "[NEW]", "special": True}, "18": {"content": "lol"}}
    files = {"vocab.txt": vocabulary(*BERT)}
    path = folder(
        tmp_path / "b",
        files,
        "bert",
        added_tokens_decoder=decoder,
        additional_special_tokens=["[X]"],
    )
    tokenizer = Tokenizer.load(path)
    assert tokenizer.encode("[NEW] lol [X]").ids[1:-1] == [5, 18, 19]
    assert set(tokenizer.special_ids) == {0, 1, 2, 3, 4, 5, 19}
    assert tokenizer.decode(tokenizer.encode("a [NEW] lol").ids) == "a lol"


# vocab.json and merges.txt


def test_gpt2_and_opt(byte_files, tmp_path):
    gpt2 = Tokenizer.load(folder(tmp_path / "g", byte_files, "gpt2"))
    text = "the lowest  fox\n 😀"
    assert gpt2.decode(gpt2.encode(text).ids) == text
    assert gpt2.eos_token_id == gpt2.bos_token_id == byte_files["vocab.json"]["<|endoftext|>"]
    opt = Tokenizer.load(folder(tmp_path / "o", byte_files, "opt"))
    assert names(opt, "the", "fox")[0] == "</s>"
    assert opt.encode("the", "fox").ids == [2, *gpt2.encode("the").ids, 2, *gpt2.encode("fox").ids]
    assert opt.pad_token_id == 1
    config = saved(opt, tmp_path / "s")
    assert config["tokenizer_class"] == "GPT2Tokenizer" and config["add_bos_token"] is True
    padded = folder(tmp_path / "p", byte_files, "gpt2", pad_token="[PAD]", model_max_length=64)
    padded = Tokenizer.load(padded)
    assert padded.pad_token_id == len(byte_files["vocab.json"]) == padded.vocab_size - 1
    assert padded.model_max_length == saved(padded, tmp_path / "q")["model_max_length"] == 64


SHAPES = {  # class, or family -> a pair's tokens, whether a word gets a space before it
    "roberta": (["<s>", "A", "</s>", "</s>", "B", "</s>"], False),
    "bart": (["<s>", "A", "</s>", "</s>", "B", "</s>"], False),
    "LongformerTokenizer": (["<s>", "A", "</s>", "</s>", "B", "</s>"], False),
    "blenderbot": (["A", "B"], True),
    "gpt_neox": (["A", "B"], False),
    "qwen2": (["A", "B"], False),
}


@pytest.mark.parametrize("name", SHAPES)
def test_byte_level_shapes(name, byte_files, tmp_path):
    shape, spaced = SHAPES[name]
    named = {"tokenizer_class": name} if name.endswith("Tokenizer") else {}
    model_type = None if named else name
    tokenizer = Tokenizer.load(folder(tmp_path / "f", byte_files, model_type, **named))
    mark = "\u0120" if spaced else ""
    wanted = [mark + part if part in "AB" else part for part in shape]
    got = "".join(str(token) for token in names(tokenizer, "A", "B"))
    assert got == "".join(wanted)
    saved(tokenizer, tmp_path / "s")


def test_words_and_composition_differ_by_class(byte_files, tmp_path):
    kinds = {}
    for name in ("gpt2", "gpt_neox", "qwen2"):
        kinds[name] = Tokenizer.load(folder(tmp_path / name, byte_files, name))
    decomposed = "cafe\u0301 2024"
    for name, tokenizer in kinds.items():
        composed = name != "gpt2"
        wanted = unicodedata.normalize("NFC", decomposed) if composed else decomposed
        assert tokenizer.decode(tokenizer.encode(decomposed).ids) == wanted
    assert kinds["qwen2"].encode("2024").tokens == list("2024")
    assert kinds["gpt2"].encode("2024").tokens != list("2024")


def test_blenderbot_ends_a_text(byte_files, tmp_path):
    tokenizer = Tokenizer.load(folder(tmp_path / "f", byte_files, "blenderbot"))
    assert "".join(map(str, names(tokenizer, "a"))) == "\u0120a</s>"
    assert tokenizer.encode("a <mask>").ids[-2:] == [tokenizer.mask_token_id, 2]


def test_gpt1_ends_words(tmp_path):
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=150, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False
    )
    backend.train_from_iterator(CORPUS * 3, trainer)
    files = merges_of(backend)
    for model_type in ("openai-gpt", None):
        path = folder(tmp_path / str(model_type), files, model_type)
        tokenizer = Tokenizer.load(path)
        for text in ("The LOWEST dog, lazy!", "café", *lines(100)):
            assert tokenizer.encode(text).ids == backend.encode(text).ids
        assert tokenizer.encode("the").tokens == ["the</w>"]
        assert tokenizer.decode(tokenizer.encode("The lowest dog").ids) == "the lowest dog"
    assert saved(tokenizer, tmp_path / "s")["tokenizer_class"] == "OpenAIGPTTokenizer"


# tokenizer.json


@pytest.fixture
def json_file(byte_files) -> dict[str, object]:
    model = models.BPE(
        byte_files["vocab.json"],
        [tuple(line.split(" ")) for line in byte_files["merges.txt"].splitlines()[1:]],
    )
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return {"tokenizer.json": json.loads(backend.to_str())}


def test_roles_come_from_all_files(json_file, tmp_path):
    files = json_file | {
        "special_tokens_map.json": {"pad_token": {"content": "<pad>"}, "eos_token": "</s>"}
    }
    decoder = {"400": {"content": "<|end|>", "special": True}}
    path = folder(
        tmp_path / "f",
        files,
        "roberta",
        bos_token=None,
        pad_token=None,
        eos_token="<|end|>",
        added_tokens_decoder=decoder,
    )
    tokenizer = Tokenizer.load(path)
    assert tokenizer.special_tokens == {
        "pad": "<pad>",
        "eos": "<|end|>",
        "unk": "<unk>",
        "cls": "<s>",
        "sep": "</s>",
        "mask": "<mask>",
    }
    assert tokenizer.eos_token_id == tokenizer.vocab_size - 1 in tokenizer.special_ids
    assert not tokenizer.uses_type_ids
    saved(tokenizer, tmp_path / "s")


def test_configuration_is_kept(json_file, tmp_path):
    template = "{% for message in messages %}{{ message.content }}{% endfor %}\n"
    path = folder(
        tmp_path / "f",
        json_file | {"chat_template.jinja": template},
        tokenizer_class="T5TokenizerFast",
        model_max_length=77,
        padding_side="left",
        auto_map={"AutoTokenizer": ["own.Own", None]},
    )
    tokenizer = Tokenizer.load(path)
    config = saved(tokenizer, tmp_path / "s")
    assert (tmp_path / "s" / "chat_template.jinja").read_text() == template
    wanted = {
        "tokenizer_class": "T5TokenizerFast",
        "model_max_length": 77,
        "padding_side": "left",
        "chat_template": template,
    }
    assert wanted.items() <= config.items() and "auto_map" not in config
    only_python = folder(tmp_path / "m", json_file, tokenizer_class="MarianTokenizer")
    config = saved(Tokenizer.load(only_python), tmp_path / "t")
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"


@pytest.mark.parametrize(
    ("files", "model_type", "config", "message"),
    [
        ({"vocab.txt": "a"}, "bert", {"tokenizer_class": "BertJapaneseTokenizer"}, "BertJapanese"),
        ({"vocab.txt": "a\nb\n"}, "bert", {}, r"\[UNK\], \[CLS\], \[SEP\] missing"),
        ({"vocab.json": {"a": 0}}, "gpt2", {}, "merges.txt"),
        ({"vocab.json": {"a": 0}, "merges.txt": "a b c\n"}, "gpt2", {}, "two symbols"),
        ({"vocab.json": {"a": 0}, "merges.txt": "a b\n"}, "gpt2", {}, "cannot be read"),
        ({}, "llama", {}, "tokenizer.model"),
        ({}, None, {}, "no tokenizer here"),
    ],
)
def test_what_cannot_be_read_is_named(files, model_type, config, message, tmp_path):
    path = folder(tmp_path / "f", files, model_type, **config)
    with pytest.raises(DataError, match=message):
        Tokenizer.load(path)


# Old files against new ones


def unpacked(path: Path, name: str) -> Path:
    path.mkdir()
    (path / "tokenizer.json").write_bytes(
        gzip.decompress((SHARED / name / "tokenizer.json.gz").read_bytes())
    )
    shutil.copyfile(SHARED / name / "tokenizer_config.json", path / "tokenizer_config.json")
    return path


needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared tokenizer files")


def differing(old: Tokenizer, new: Tokenizer, count: int = 5500) -> list[str]:
    texts = lines(count)
    rows = zip(texts, old.encode_raw(texts), new.encode_raw(texts), strict=True)
    return [text for text, a, b in rows if a.ids != b.ids]


@needs_shared
def test_roberta_old_against_new(tmp_path):
    new = Tokenizer.load(unpacked(tmp_path / "new", "roberta-base"))
    path = folder(tmp_path / "old", {}, "roberta")
    for name in ("vocab.json", "merges.txt"):
        shutil.copyfile(SHARED / "roberta-base" / name, path / name)
    old = Tokenizer.load(path)
    assert differing(old, new) == []
    assert old.encode("a <mask>", "b").ids == new.encode("a <mask>", "b").ids


@needs_shared
def test_t5_old_against_new(tmp_path):
    """The published file differs from SentencePiece in combining and control characters."""
    new = Tokenizer.load(unpacked(tmp_path / "new", "t5-small"))
    path = folder(tmp_path / "old", {}, "t5")
    shutil.copyfile(SHARED / "t5-small" / "spiece.model", path / "spiece.model")
    old = Tokenizer.load(path)
    assert old.backend.get_vocab() == new.backend.get_vocab()
    assert old.special_tokens == new.special_tokens
    texts = differing(old, new)
    assert len(texts) < 30
    odd = ("Mn", "Mc", "Me", "Cc", "Cf")
    assert all(any(unicodedata.category(c) in odd for c in text) for text in texts)


@needs_shared
def test_phi3_from_the_llama_model(tmp_path):
    new = Tokenizer.load(unpacked(tmp_path / "new", "phi-3-mini"))
    config = json.loads((tmp_path / "new" / "tokenizer_config.json").read_text())
    path = folder(tmp_path / "old", {}, "phi3", **(config | {"legacy": True}))
    shutil.copyfile(SHARED / "llama2" / "tokenizer.model", path / "tokenizer.model")
    old = Tokenizer.load(path)
    assert old.backend.get_vocab() == new.backend.get_vocab()
    assert differing(old, new) == []
    text = "<|user|>\nhi<|end|>\n<|assistant|>"
    assert old.encode(text).ids == new.encode(text).ids
