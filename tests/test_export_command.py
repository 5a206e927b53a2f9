"""The command `zoo export`: every form from one table, options that mean nothing are wrong use."""

import json
import re
from pathlib import Path

import keras
import pytest
from click.testing import CliRunner, Result
from tokenizers import normalizers

import zoo
from export.commands.export import FORMATS, export
from export.saved_model import to_saved_model
from serve.bundle.manifest import Manifest

TEXTS = ["a fine film", "a dull plot", "good actors", "nobody likes it"] * 8


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A classifier in Hugging Face's form."""
    keras.utils.set_random_seed(0)
    tokenizer = zoo.Tokenizer.train("wordpiece", TEXTS, vocab_size=80)
    config = zoo.EncoderConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_dim=32,
        num_layers=1,
        num_heads=2,
        token_types=2,
        max_length=48,
        norm_position="post",
        norm_epsilon=1e-12,
        embedding_norm=True,
    )
    head = {"pooling": "cls", "hidden_activation": "tanh"}
    model = zoo.TaskModel(config, "text-classification", labels=["bad", "good"], head=head)
    model.tokenizer = tokenizer
    folder = tmp_path_factory.mktemp("checkpoint") / "reviews"
    model.save_pretrained(folder, model_type="bert")
    return folder


def run(checkpoint: Path, out: Path, *words: str) -> Result:
    return CliRunner().invoke(export, [str(checkpoint), "--out", str(out), *words])


MADE = {
    ("onnx", None): "manifest.json",
    ("onnx", "optimum"): "model.onnx",
    ("onnx", "triton"): "config.pbtxt",
    ("saved_model", None): "saved_model.pb",
    ("saved_model", "tf_serving"): "1/saved_model.pb",
    ("litert", None): "model.tflite",
    ("text_onnx", None): "",
}


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: "-".join(filter(None, form)))
def test_every_form_is_made(form, checkpoint, tmp_path) -> None:
    kind, layout = form
    out = tmp_path / ("reviews.onnx" if kind == "text_onnx" else "reviews")
    words = ["--to", kind, *(["--layout", layout] if layout else [])]
    result = run(checkpoint, out, *words)
    assert result.exit_code == 0, result.output + repr(result.exception)
    assert (out / MADE[form] if MADE[form] else out).is_file()
    assert "MB in" in result.output
    again = run(checkpoint, out, *words, *(["--version", "1"] if layout == "tf_serving" else []))
    assert again.exit_code != 0 and "exists" in str(again.exception)


def test_a_quantised_bundle_with_its_budget_and_page(checkpoint, tmp_path) -> None:
    data = tmp_path / "examples.jsonl"
    lines = [{"text": t, "label": "good" if "good" in t else "bad"} for t in TEXTS]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["--precision", "int8", "--data", str(data), "--metric", "accuracy"]
    words += ["--max-drop", "0.3", "--report", str(tmp_path / "page")]
    result = run(checkpoint, tmp_path / "small", *words)
    assert result.exit_code == 0, result.output + repr(result.exception)
    assert "accuracy" in result.output and "in float32" in result.output
    assert (tmp_path / "page" / "index.html").is_file()
    manifest = Manifest.load(tmp_path / "small")
    assert manifest.precision == "int8"
    assert manifest.quantization["quality"]["examples"] == len(TEXTS)
    assert manifest.source["model_type"] == "bert"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "litert", "--layout", "optimum"], "no layouts"),
        (["--to", "saved_model", "--layout", "triton"], "tf_serving"),
        (["--to", "litert", "--opset", "17"], "--opset means nothing"),
        (["--to", "onnx", "--pair"], "--pair means nothing"),
        (["--max-drop", "0.1"], "--max-drop goes with a quantised"),
        (["--precision", "int8", "--metric", "f1"], "--metric goes with --max-drop"),
        (["--precision", "int3"], "int3"),
    ],
)
def test_wrong_use_is_named(words, said, checkpoint, tmp_path) -> None:
    result = run(checkpoint, tmp_path / "out", *words)
    assert result.exit_code == 2
    assert said in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "no example"),
        ([{"text": "a film", "label": "meh"}], "'meh'"),
        ([{"txt": "a film", "lab": "good"}], "has no|label None"),
    ],
)
def test_data_that_measures_nothing_is_refused(lines, said, checkpoint, tmp_path) -> None:
    data = tmp_path / "examples.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["--precision", "int8", "--data", str(data), "--max-drop", "0.3"]
    result = run(checkpoint, tmp_path / "out", *words)
    assert result.exit_code == 1
    assert re.search(said, str(result.exception)), result.exception
    assert list(tmp_path.iterdir()) == [data]


def test_a_head_that_the_family_does_not_have_is_refused(tmp_path) -> None:
    config = zoo.EncoderConfig(
        vocab_size=40, hidden_dim=16, num_layers=1, num_heads=2, token_types=2,
        norm_position="post", norm_epsilon=1e-12, embedding_norm=True,
    )  # fmt: skip
    model = zoo.TaskModel(config, "text-classification", labels=["a", "b"])
    with pytest.raises(zoo.ConfigError, match="pooling = 'cls', not 'mean'"):
        model.save_pretrained(tmp_path / "it", model_type="bert")
    assert list(tmp_path.iterdir()) == []


def test_a_saved_model_keeps_the_tables_of_its_normaliser(tmp_path) -> None:
    """Those of NFKC within a sequence, which are reached through functions alone."""
    tokenizer = zoo.Tokenizer.train("char", TEXTS, vocab_size=60)
    steps = [normalizers.NFKC(), normalizers.Lowercase()]
    tokenizer.backend.normalizer = normalizers.Sequence(steps)
    config = zoo.EncoderConfig(
        vocab_size=tokenizer.vocab_size, hidden_dim=16, num_layers=1, num_heads=2, max_length=32
    )
    model = zoo.TaskModel(config, "text-classification", labels=["a", "b"])
    out = tmp_path / "it"
    to_saved_model(model, out, tokenizer=tokenizer, text=True, verify=False)
    assert (out / "saved_model.pb").is_file()


def test_what_a_form_does_not_have_is_an_error(checkpoint, tmp_path) -> None:
    for words in (["--to", "litert", "--precision", "int4"], ["--precision", "int8-int4"]):
        result = run(checkpoint, tmp_path / "out", *words)
        assert result.exit_code == 1 and "int4" in str(result.exception)
    assert list(tmp_path.iterdir()) == []
