"""SavedModels that take strings: answers as the tokenizer and Keras give them, TensorFlow alone."""

import dataclasses
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import fuzz_text
import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from tokenizers import pre_tokenizers
from tolerances import close

import export
import zoo
from export.saved_model import EXTRA

pytestmark = pytest.mark.timeout(900)  # an export traces and compares; machines may be busy

TEXTS = ["Hello, world!", "naïve ½", "", "日本語 a", "x " * 60]
PAIRS = ["again", "", "c d e", "日本", "y " * 40]


def build(name: str, task: str, kind: str, template: str) -> zoo.TaskModel:
    """A tiny model with a tokenizer of its own."""
    texts = fuzz_text.lines(300, seed=1)
    tokenizer = zoo.Tokenizer.train(kind, texts, vocab_size=420, template=template)
    config = dataclasses.replace(
        tiny.CONFIGS[name],
        vocab_size=tokenizer.vocab_size,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    keras.utils.set_random_seed(3)
    model = zoo.TaskModel(config, task, labels=tiny.LABELS if "classification" in task else None)
    tiny.stir(model, 3)
    model.tokenizer = tokenizer
    return model


CASES = {
    "classify": ("encoder/segments-postnorm", "text-classification", "wordpiece", "encoder"),
    "write": ("decoder/learned-gelu-tanh", "text-generation", "bpe", "decoder"),
    "answer": ("encoder-decoder/sinusoidal-postnorm", "text2text-generation", "unigram", "seq2seq"),
    "tag": ("encoder/sandwich", "token-classification", "char", "encoder"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(model, folder, report, signatures) of a case; made once."""
    made = {}

    def get(case: str):
        if case not in made:
            model = build(*CASES[case])
            folder = tmp_path_factory.mktemp("text") / case
            report = export.to_saved_model(model, folder, text=True, verify=case == "write")
            made[case] = model, folder, report, tf.saved_model.load(str(folder)).signatures
        return made[case]

    return get


def test_classes_of_texts_and_pairs(saved) -> None:
    model, folder, report, signatures = saved("classify")
    assert report["text"]["signatures"] == ["text", "text_pair", "tokenize"]
    assert json.loads((folder / EXTRA / "text.json").read_text()) == report["text"]
    texts, pairs = tf.constant(TEXTS), tf.constant(PAIRS)
    for found, second in (
        (signatures["text"](text=texts), None),
        (signatures["text_pair"](text=texts, pair=pairs), PAIRS),
    ):
        feeds = model.tokenizer(TEXTS, second, max_length=model.config.max_length)
        logits = np.asarray(model(feeds)["logits"], "float64")
        expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        close(found["scores"], expected, "saved_model")
        close(found["score"], expected.max(axis=1), "saved_model")
        labels = [tiny.LABELS[best] for best in expected.argmax(axis=1)]
        assert [label.decode() for label in found["label"].numpy()] == labels
    assert np.ptp(found["scores"], axis=0).max() > 0.01


def test_tokens_get_labels(saved) -> None:
    model, _, _, signatures = saved("tag")
    found = signatures["text"](text=tf.constant(TEXTS))
    feeds = model.tokenizer(TEXTS, max_length=model.config.max_length)
    best = np.asarray(model(feeds)["logits"]).argmax(-1)
    np.testing.assert_array_equal(found["attention_mask"], feeds["attention_mask"])
    for row, (ids, mask) in enumerate(
        zip(feeds["input_ids"], feeds["attention_mask"], strict=True)
    ):
        for at in np.flatnonzero(mask):
            token = found["tokens"][row, at].numpy().decode()
            assert token == model.tokenizer.id_to_token(ids[at])
            assert found["labels"][row, at].numpy().decode() == tiny.LABELS[best[row, at]]


@pytest.mark.parametrize("case", ["write", "answer"])
def test_texts_are_written(case, saved) -> None:
    model, _, report, signatures = saved(case)
    tokenizer = model.tokenizer
    assert {"generate_text", "sample_text", "detokenize"} <= set(report["text"]["signatures"])
    texts = TEXTS if case == "answer" else ["Hello", "日本語", "a b"]
    feeds = tokenizer(texts, max_length=None if case == "write" else model.config.max_length)
    feeds.pop("token_type_ids", None)
    most = tf.constant(7, "int64")
    new = model.generate(**feeds, max_new_tokens=7).tolist()
    eos = model.config.eos_token_id
    rows = [row[: row.index(eos)] if eos in row else row for row in new]
    found = signatures["generate_text"](text=tf.constant(texts), max_new_tokens=most)
    written = [text.decode() for text in found["generated_text"].numpy()]
    assert written == tokenizer.decode_batch(rows)
    assert any(written)
    settings = {"temperature": tf.constant(1.0), "top_p": tf.constant(1.0)}
    settings |= {"top_k": tf.constant(1, "int64"), "seed": tf.constant(5, "int64")}
    drawn = signatures["sample_text"](text=tf.constant(texts), max_new_tokens=most, **settings)
    assert [text.decode() for text in drawn["generated_text"].numpy()] == written
    back = signatures["detokenize"](ids=tf.constant(new, "int64"))["text"].numpy()
    assert [text.decode() for text in back] == tokenizer.decode_batch(new)


def test_a_prompt_of_no_tokens_begins_with_the_first_token(saved) -> None:
    model, _, _, signatures = saved("write")
    most = tf.constant(4, "int64")
    found = signatures["generate_text"](text=tf.constant(["", "a"]), max_new_tokens=most)
    ids = np.array([[model.config.bos_token_id]])
    new = model.generate(ids, max_new_tokens=4).tolist()[0]
    eos = model.config.eos_token_id
    new = new[: new.index(eos)] if eos in new else new
    assert found["generated_text"][0].numpy().decode() == model.tokenizer.decode(new)


def test_what_is_not_exact_is_left_out(tmp_path: Path) -> None:
    model = build("encoder/alibi", "sentence-similarity", "wordpiece", "encoder")
    model.tokenizer.backend.pre_tokenizer = pre_tokenizers.UnicodeScripts()
    said = []
    report = export.to_saved_model(model, tmp_path / "a", verify=False, progress=said.append)
    assert report["text"]["signatures"] == []
    assert "UnicodeScripts" in report["text"]["left_out"]
    assert any("UnicodeScripts" in text for text in said)
    assert json.loads((tmp_path / "a" / EXTRA / "text.json").read_text()) == report["text"]
    assert set(tf.saved_model.load(str(tmp_path / "a")).signatures) == {"serving_default"}
    with pytest.raises(export.ExportError, match="UnicodeScripts"):
        export.to_saved_model(model, tmp_path / "b", text=True)
    assert not (tmp_path / "b").exists()


def test_a_difference_found_by_comparing_is_refused(tmp_path: Path, monkeypatch) -> None:
    model = build("encoder/alibi", "sentence-similarity", "wordpiece", "encoder")
    monkeypatch.setattr("export.strings.added.CODES", 0x110001)
    with pytest.raises(export.ExportError, match="not the library's"):
        export.to_saved_model(model, tmp_path / "a", text=True)


def test_the_page_s_lines_run(saved, tmp_path: Path, monkeypatch, capsys) -> None:
    page = (Path(__file__).parents[1] / "docs/saved_model.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[1:]
    (tmp_path / "models").mkdir()
    for name, case in (("reviews", "classify"), ("writer", "write")):
        (tmp_path / "models" / name).symlink_to(saved(case)[1])
    monkeypatch.chdir(tmp_path)
    # The tiny model has room for fewer tokens.
    (tmp_path / "page.py").write_text("\n".join(blocks).replace("40, tf", "4, tf"))
    runpy.run_path(str(tmp_path / "page.py"))
    printed = capsys.readouterr().out
    assert any(label in printed for label in tiny.LABELS)


CLEAN = """
import json
import sys

for name in ("zoo", "export", "serve", "keras", "tensorflow_text", "tokenizers"):
    sys.modules[name] = None  # importing it would fail
import tensorflow as tf

texts = tf.constant(json.loads(sys.argv[3]))
classify = tf.saved_model.load(sys.argv[1]).signatures["text"]
labels = [label.decode() for label in classify(text=texts)["label"].numpy()]
write = tf.saved_model.load(sys.argv[2]).signatures["generate_text"]
written = write(text=texts, max_new_tokens=tf.constant(5, tf.int64))["generated_text"].numpy()
print(json.dumps([labels, [text.decode() for text in written]]))
"""


def test_tensorflow_alone_reads_strings(saved, tmp_path: Path) -> None:
    _, classifier, _, classify = saved("classify")
    _, writer, _, write = saved("write")
    texts = ["Hello", "naïve 日本"]
    done = subprocess.run(
        [sys.executable, "-c", CLEAN, str(classifier), str(writer), json.dumps(texts)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    labels, written = json.loads(done.stdout.splitlines()[-1])
    expected = classify["text"](text=tf.constant(texts))["label"].numpy()
    assert labels == [label.decode() for label in expected]
    most = tf.constant(5, "int64")
    expected = write["generate_text"](text=tf.constant(texts), max_new_tokens=most)
    assert written == [text.decode() for text in expected["generated_text"].numpy()]
