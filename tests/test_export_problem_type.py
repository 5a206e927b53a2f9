"""A bundle says what the logits of its classifier are, as the checkpoint had it."""

import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import serve
import zoo
from export import to_onnx, to_text_onnx
from export.facts import problem_type
from export.text_onnx import session
from export.text_signatures import _answer_of
from serve.bundle.manifest import Manifest


def checkpoint(folder: Path, **config: str) -> Path:
    """A small classifier whose config.json says more."""
    facts = zoo.EncoderConfig(
        vocab_size=31,
        hidden_dim=12,
        num_layers=1,
        num_heads=3,
        token_types=2,
        max_length=24,
        norm_position="post",
        norm_epsilon=1e-12,
        embedding_norm=True,
    )
    head = {"pooling": "cls", "hidden_activation": "tanh"}
    model = zoo.TaskModel(facts, "text-classification", labels=["sea", "sun"], head=head)
    model.save_pretrained(folder, model_type="bert")
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return folder


def test_the_kind_of_problem_goes_from_checkpoint_to_bundle(tmp_path):
    kind = "multi_label_classification"
    model = zoo.from_pretrained(checkpoint(tmp_path / "a", problem_type=kind))
    assert to_onnx(model, tmp_path / "bundle").problem_type == kind
    assert Manifest.load(tmp_path / "bundle").problem_type == kind
    model.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["problem_type"] == kind


@pytest.mark.parametrize("said", [None, "token_classification"])
def test_what_is_not_said_is_not_guessed(tmp_path, said):
    folder = checkpoint(tmp_path / "a", **({"problem_type": said} if said else {}))
    assert problem_type(zoo.from_pretrained(folder)) is None
    assert problem_type(zoo.from_pretrained(folder, task="feature-extraction")) is None


KINDS = ["multi_label_classification", "regression"]


@pytest.mark.parametrize("kind", KINDS)
def test_files_from_strings_answer_as_their_bundle(tmp_path, kind):
    pytest.importorskip("onnxruntime_extensions")
    model = with_text(checkpoint(tmp_path / "a", problem_type=kind))
    to_onnx(model, tmp_path / "bundle", verify=False)
    report = to_text_onnx(model, tmp_path / "m.onnx")
    assert report["largest"] <= report["tolerance"]
    feeds = {"text": np.array(TEXTS, dtype=object)}
    [found] = session(tmp_path / "m.onnx").run(["scores"], feeds)
    assert np.abs(found - expected(tmp_path / "bundle", kind)).max() < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_signatures_of_saved_models_answer_likewise(tmp_path, kind):
    model = with_text(checkpoint(tmp_path / "a", problem_type=kind))
    answer = _answer_of(model, None)
    logits = np.array([[0.5, -2.0], [1.0, 3.0]], "float32")
    found = answer({}, {"logits": tf.constant(logits)})
    right = logits if kind == "regression" else 1 / (1 + np.exp(-logits))
    assert np.abs(found["scores"].numpy() - right).max() < 1e-6
    assert found["label"].numpy().tolist() == [b"sea", b"sun"]


TEXTS = ["the cold wind", "a red boat sails", "sun"]


def with_text(folder: Path) -> zoo.TaskModel:
    """The classifier with a tokenizer, and weights that tell texts apart."""
    model = zoo.from_pretrained(folder)
    model.tokenizer = zoo.Tokenizer.train("wordpiece", TEXTS, vocab_size=31)
    rng = np.random.default_rng(3)
    for weight in model.weights:
        weight.assign(rng.normal(0.0, 0.7, weight.shape))
    return model


def expected(bundle: Path, kind: str) -> np.ndarray:
    """What `serve` says, which is what the type of problem asks for."""
    pipeline = serve.load(bundle)
    answers = [answer.scores for answer in pipeline(TEXTS)]
    scores = np.array([[answer[label] for label in ("sea", "sun")] for answer in answers])
    logits = [pipeline.session.run(pipeline.tokenizer.batch([piece]))["logits"][0]
              for piece in pipeline.tokenizer.encode(TEXTS)]  # fmt: skip
    right = np.array(logits) if kind == "regression" else 1 / (1 + np.exp(-np.array(logits)))
    assert np.abs(scores - right).max() < 1e-5
    assert np.ptp(right, axis=0).max() > 0.05
    return scores
