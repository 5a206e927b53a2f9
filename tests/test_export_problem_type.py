"""A bundle says what the logits of its classifier are, as the checkpoint had it."""

import json
from pathlib import Path

import pytest

import zoo
from export import to_onnx
from export.facts import problem_type
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
