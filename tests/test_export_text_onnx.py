"""ONNX files that take strings: ids against the tokenizers library, values against Keras."""

import hashlib
import json
import random
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from fuzz_text import lines

pytest.importorskip("onnxruntime_extensions")

import export
import export.text_onnx
import serve
import zoo
from export import ExportError, VerificationError
from export.text_graph.corpus import pairs
from export.text_onnx import compare_ids, session, to_text_onnx, tokenizer_session
from export.tolerances import TOLERANCES

FUZZ = 20_000
TARGETS = ("onnxruntime", "portable")
ODD = [
    "",
    "  ",
    "a\0b",
    "[MASK] is [SEP][CLS]",
    "Müßte, 日本語!",
    "it's <|endoftext|>",
    "\ue000x " * 60,
]


def with_facts(tokenizer: zoo.Tokenizer, **facts: Any) -> zoo.Tokenizer:
    """The tokenizer with entries of its tokenizer.json replaced; a dict updates an entry."""
    described = json.loads(tokenizer.backend.to_str())
    for name, value in facts.items():
        old = described[name]
        described[name] = {**old, **value} if isinstance(value, dict) and old else value
    backend = tokenizers.Tokenizer.from_str(json.dumps(described))
    return zoo.Tokenizer(backend, tokenizer._config)


def eager(tokenizer: zoo.Tokenizer, **flags: bool) -> zoo.Tokenizer:
    """The tokenizer with flags on its [MASK] token."""
    added = json.loads(tokenizer.backend.to_str())["added_tokens"]
    for token in added:
        if token["content"] == "[MASK]":
            token.update(flags)
    return with_facts(tokenizer, added_tokens=added)


BERT = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert-uncased": (
        "wordpiece",
        {
            "normalizer": {**BERT, "strip_accents": None, "lowercase": True},
            "mask": {"lstrip": True},
        },
    ),
    "roberta": ("bpe", {"pre_tokenizer": {"add_prefix_space": True}, "mask": {"lstrip": True}}),
    "byte": ("byte", {}),
    "char-nfc": ("char", {"normalization": "nfc"}),
    "unigram": ("unigram", {}),
    "unigram-nfkc": ("unigram", {"normalization": "nfkc+lowercase", "byte_fallback": False}),
}
TRAINED = ("normalization", "byte_fallback", "mask")


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> zoo.Tokenizer:
    return made(request.param)


def made(name: str) -> zoo.Tokenizer:
    kind, facts = KINDS[name]
    size = None if kind in ("byte", "char") else 2000
    options = {key: facts[key] for key in ("normalization", "byte_fallback") if key in facts}
    trained = zoo.Tokenizer.train(kind, lines(FUZZ)[::11], vocab_size=size, **options)
    changes = {key: value for key, value in facts.items() if key not in TRAINED}
    return eager(with_facts(trained, **changes), **facts.get("mask", {}))


def tampered(count: int) -> list[str]:
    """Lines with special tokens, apostrophes and white space among their characters."""
    draw = random.Random(3)
    parts = ["[MASK]", " \n [MASK] ", "[SEP]", "[[CLS]]", "[MAS", "'s", "'re", "''ll ", "  ", "\n "]
    found = []
    for line in lines(FUZZ)[:count]:
        at = draw.randint(0, len(line))
        found.append(line[:at] + "".join(draw.choices(parts, k=3)) + line[at:])
    return found


def test_ids_are_those_of_the_tokenizers_library(tokenizer):
    run = tokenizer_session(tokenizer, max_length=100_000)
    texts = lines(FUZZ)
    if tokenizer.backend.normalizer and "NFKC" in repr(tokenizer.backend.normalizer):
        texts = texts[:4000]  # the others of its kind read them all
    assert compare_ids(run, tokenizer, texts, None, None) == len(texts)
    texts = tampered(1000)
    assert compare_ids(run, tokenizer, texts, None, None) == len(texts)


def test_pairs_and_long_texts_are_cut_alike(tokenizer):
    texts = [text[:45] for text in tampered(200)]
    for length in (9, 30):
        run = tokenizer_session(tokenizer, max_length=length, pair=True)
        compare_ids(run, tokenizer, texts, pairs(texts), length)
    run = tokenizer_session(tokenizer, max_length=8)
    compare_ids(run, tokenizer, texts, None, 8)


def marked(count: int) -> list[str]:
    """Letters with several combining marks behind them, in any order; letters of Hangul."""
    draw = random.Random(9)
    marks = [chr(code) for code in range(0x300, 0xD800) if unicodedata.combining(chr(code))]
    common = [*"\u0301\u0302\u0308\u0323\u0327\u031b\u0345\u3099\u0338"]
    bases = "aeoAUnοωΑखਕかはカ=אش\u1100\u1112\uac00\u0bc6\u09c7"
    tails = ["\u1161", "\u11ab", "\u0bbe", "\u09be", "\u302e", "\U0001d165", *common * 9, *marks]

    def word() -> str:
        return draw.choice(bases) + "".join(draw.choices(tails, k=draw.randint(0, 4)))

    return ["".join(word() for _ in range(draw.randint(1, 6))) for _ in range(count)]


@pytest.mark.parametrize("normalization", ["nfc", "nfkc", "nfd", "nfkd+lowercase", "strip_accents"])
def test_marks_are_ordered_and_composed_alike(normalization):
    texts = marked(1200)
    every = zoo.Tokenizer.train("char", lines(500) + texts, normalization=normalization)
    run = tokenizer_session(every, max_length=10_000)
    assert compare_ids(run, every, texts, None, None) == len(texts)
    assert compare_ids(run, every, lines(400), None, None) == 400


REAL = ("bert-base-uncased", "bert-base-cased", "roberta-base")
SHARED = Path(__file__).parents[1] / "../shared/data/tokenizers"


@pytest.mark.parametrize("name", REAL)
def test_published_tokenizers(name):
    if not (SHARED / name).is_dir():
        pytest.skip("needs the shared tokenizer files")
    published = zoo.Tokenizer.load(SHARED / name)
    run = tokenizer_session(published, max_length=512)
    assert compare_ids(run, published, lines(1500, seed=11), None, 512) == 1500


def test_batches_of_any_size(tokenizer):
    run = tokenizer_session(tokenizer, max_length=50, pad=7)
    for batch in ([], [""], ["", ""], ["a"], ["", "b c", ""]):
        ids, mask, types = run.run(None, {"text": np.array(batch, dtype=object)})
        assert ids.shape == mask.shape == types.shape and len(ids) == len(batch)
        assert (ids[mask == 0] == 7).all()
    compare_ids(run, tokenizer, ODD, None, 50, batch=1)


def test_comparison_notices_other_ids():
    one, two = (zoo.Tokenizer.train("bpe", lines(400), vocab_size=size) for size in (300, 320))
    run = tokenizer_session(one, max_length=99)
    with pytest.raises(VerificationError, match=r"the graph's ids of .* those of the tokenizers"):
        compare_ids(run, two, lines(400), None, 99)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "normaliser": ("bpe", {"normalizer": {"type": "Strip", "strip_left": True,
                                          "strip_right": True}}, "normaliser Strip has no exact"),
    "pattern": ("bpe", {"normalizer": {"type": "Replace", "pattern": {"Regex": "a+"},
                                       "content": "b"}}, r"replaces .*'Regex': 'a\+'"),
    "words": ("wordpiece", {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "x+"},
              "behavior": "Isolated", "invert": False}}, r"cuts words by .*x\+"),
    "model": ("bpe", {"model": {"ignore_merges": True}}, "ignore_merges = True"),
    "bytes": ("bpe", {"pre_tokenizer": {"type": "WhitespaceSplit"}}, "vocabulary of characters"),
    "token": ("wordpiece", {"added_tokens": "rstrip"}, r"'\[MASK\]' is matched with rstrip"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_exact_twin_is_refused_by_name(name, tmp_path):
    kind, facts, message = REFUSED[name]
    trained = zoo.Tokenizer.train(kind, ["some words", "some more"] * 9, vocab_size=300)
    if facts.get("added_tokens") == "rstrip":
        changed = eager(trained, rstrip=True)
    else:
        changed = with_facts(trained, **facts)
    with pytest.raises(ExportError, match=message):
        to_text_onnx(model_of(changed), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def model_of(
    tokenizer: zoo.Tokenizer, task: str = "text-classification", labels: Any = ("bad", "good", "so")
) -> zoo.TaskModel:
    config = zoo.EncoderConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_dim=24,
        num_heads=3,
        num_layers=1,
        token_types=2,
        max_length=30,
        initializer_range=0.3,
        pad_token_id=tokenizer.pad_token_id,
    )
    labels = labels if task == "text-classification" else None
    model = zoo.TaskModel(config, task=task, labels=labels)
    model.tokenizer = tokenizer
    return model


@pytest.fixture(scope="module")
def small() -> zoo.Tokenizer:
    return zoo.Tokenizer.train("wordpiece", lines(600), vocab_size=700)


TEXTS = [text for text in (*lines(60)[::3], *ODD) if text.strip()]


@pytest.mark.parametrize("target", TARGETS)
def test_a_classifier_says_what_its_bundle_says(small, target, tmp_path):
    model = model_of(small)
    report = to_text_onnx(model, tmp_path / "m.onnx", target=target)
    assert report["ids"] > 900 and report["largest"] <= TOLERANCES["float32"]
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    export.to_onnx(model, tmp_path / "bundle", target=target, verify=False)
    expected = serve.load(tmp_path / "bundle")(TEXTS, long="cut")
    labels, scores = session(tmp_path / "m.onnx").run(
        ["label", "scores"], {"text": np.array(TEXTS, dtype=object)}
    )
    assert labels.tolist() == [answer.label for answer in expected]
    wanted = [[answer.scores[label] for label in model.labels] for answer in expected]
    assert np.abs(scores - np.array(wanted)).max() <= TOLERANCES["float32"]
    assert np.ptp(scores, axis=0).max() > 0.05  # texts differ, so the comparison says something


def test_a_pair_is_two_inputs(small, tmp_path):
    model = model_of(small)
    to_text_onnx(model, tmp_path / "m.onnx", pair=True)
    export.to_onnx(model, tmp_path / "bundle", verify=False)
    others = pairs(TEXTS)
    expected = serve.load(tmp_path / "bundle")(list(zip(TEXTS, others, strict=True)), long="cut")
    feeds = {"text": np.array(TEXTS, dtype=object), "pair": np.array(others, dtype=object)}
    labels, _ = session(tmp_path / "m.onnx").run(["label", "scores"], feeds)
    assert labels.tolist() == [answer.label for answer in expected]


def test_a_lone_class_is_weighed_against_its_absence(small, tmp_path):
    to_text_onnx(model_of(small, labels=["spam"]), tmp_path / "m.onnx", verify=False)
    found = session(tmp_path / "m.onnx").run(None, {"text": np.array(TEXTS, dtype=object)})
    assert set(found[0]) == {"spam"} and np.ptp(found[1]) > 0.02


@pytest.mark.parametrize("task", ["sentence-similarity", "feature-extraction"])
def test_vectors_are_pooled_and_of_length_one(small, task, tmp_path):
    model = model_of(small, task)
    to_text_onnx(model, tmp_path / "m.onnx", pooling="mean", verify=task == "feature-extraction")
    (found,) = session(tmp_path / "m.onnx").run(None, {"text": np.array(TEXTS, dtype=object)})
    rows = small(TEXTS, max_length=30)
    outputs = model({name: value.astype("int64") for name, value in rows.items()})
    if task == "feature-extraction":
        states, mask = np.asarray(outputs["last_hidden_state"]), rows["attention_mask"][..., None]
        expected = (states * mask).sum(1) / mask.sum(1)
        expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    else:
        expected = np.asarray(outputs["sentence_embedding"])
    assert np.abs(found - expected).max() <= TOLERANCES["float32"]
    assert np.allclose(np.linalg.norm(found, axis=-1), 1)


CLEAN = """
import json, sys
import numpy, onnxruntime
from onnxruntime_extensions import get_library_path
options = onnxruntime.SessionOptions()
options.register_custom_ops_library(get_library_path())
session = onnxruntime.InferenceSession(sys.argv[1], options)
texts = numpy.array(json.loads(sys.argv[2]), dtype=object)
labels, scores = session.run(["label", "scores"], {"text": texts})
heavy = {"tensorflow", "keras", "tokenizers", "zoo", "export", "serve"} & set(sys.modules)
print(json.dumps([sorted(heavy), labels.tolist(), scores.tolist()]))
"""


def test_the_file_alone_answers_in_a_process_with_onnxruntime_only(small, tmp_path):
    to_text_onnx(model_of(small), tmp_path / "m.onnx", verify=False)
    alone = tmp_path / "elsewhere" / "m.onnx"
    alone.parent.mkdir()
    (tmp_path / "m.onnx").rename(alone)
    texts = [text for text in TEXTS if "\0" not in text]
    done = subprocess.run(
        [sys.executable, "-I", "-c", CLEAN, str(alone), json.dumps(texts)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    heavy, labels, scores = json.loads(done.stdout.splitlines()[-1])
    assert heavy == [] and done.stderr == ""
    here = session(alone).run(["label", "scores"], {"text": np.array(texts, dtype=object)})
    assert labels == here[0].tolist() and np.allclose(scores, here[1], atol=1e-6)


def test_the_same_model_gives_the_same_bytes(small, tmp_path):
    model = model_of(small)
    hashes = set()
    for name in ("a.onnx", "b.onnx"):
        to_text_onnx(model, tmp_path / name, verify=False)
        hashes.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(hashes) == 1


def test_a_file_is_replaced_only_when_asked_and_only_by_a_whole_one(small, tmp_path, monkeypatch):
    out = tmp_path / "m.onnx"
    out.write_text("before")
    with pytest.raises(ExportError, match="exists already"):
        to_text_onnx(model_of(small), out)
    with monkeypatch.context() as patch:
        patch.setitem(TOLERANCES, "float32", -1.0)
        with pytest.raises(VerificationError, match=r"scores differ from Keras by .*, tolerance"):
            to_text_onnx(model_of(small), out, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert out.read_text() == "before"
    to_text_onnx(model_of(small), out, overwrite=True, verify=False)
    assert session(out).get_inputs()[0].name == "text"


def test_ids_that_differ_stop_the_export(small, tmp_path, monkeypatch):
    other = zoo.Tokenizer.train("wordpiece", lines(900)[300:], vocab_size=700)
    encode = export.text_onnx.encode
    monkeypatch.setattr(
        export.text_onnx, "encode", lambda g, inputs, _, **rest: encode(g, inputs, other, **rest)
    )
    with pytest.raises(VerificationError, match="the graph's ids of"):
        to_text_onnx(model_of(small), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "token-classification"}, "answers about tokens"),
        ({"task": "fill-mask"}, "answers about tokens"),
        ({"task": "sentence-similarity", "pair": True}, "reads one text"),
        ({"target": "elsewhere"}, "target = 'elsewhere'"),
        ({"limit": 1000}, "holds at most 2 GiB"),
        ({"missing": True}, "pip install onnxruntime-extensions"),
        ({"tokenizer": None}, "has no tokenizer"),
    ],
)
def test_what_cannot_be_exported_says_why(small, change, message, tmp_path, monkeypatch):
    task = change.get("task", "text-classification")
    config = model_of(small).config
    labels = ["a", "b"] if "classification" in task else None
    model = zoo.TaskModel(config, task=task, labels=labels)
    model.tokenizer = change.get("tokenizer", small)
    if "limit" in change:
        monkeypatch.setattr(export.text_onnx, "LIMIT", change["limit"])
    if "missing" in change:
        monkeypatch.setitem(sys.modules, "onnxruntime_extensions", None)
    settings = {name: change[name] for name in ("target", "pair") if name in change}
    with pytest.raises(ExportError, match=message):
        to_text_onnx(model, Path(tmp_path) / "m.onnx", **settings)
    assert list(tmp_path.iterdir()) == []


def test_the_page_about_these_files_runs(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[1] / "docs" / "text_onnx.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec("\n".join(blocks), names)
    assert [path.name for path in tmp_path.iterdir()] == ["reviews.onnx"]
    assert set(names["labels"]) <= {"bad", "good"} and names["scores"].shape == (2, 2)
    assert " ms" in capsys.readouterr().out
