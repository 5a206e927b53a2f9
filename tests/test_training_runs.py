"""Whole runs: what a run folder holds, stopping and going on exactly, and what is refused."""

import dataclasses
import json
import os
import signal

import keras
import numpy as np
import pytest
import training_worker as worker
from click.testing import CliRunner

import zoo
from zoo.commands import train as train_command
from zoo.config import to_mapping
from zoo.errors import ConfigError, RunError
from zoo.evaluation import evaluate_run
from zoo.training.checkpoint import read_state
from zoo.training.load import load_recipe, recipe_from_mapping
from zoo.training.loop import TrainingLoop
from zoo.training.trainer import InterruptedTrainingError, train
from zoo.training.yaml_text import dump

CHECKPOINT = {"every_steps": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def data(folder):
    return worker.write_data(folder)


@pytest.fixture(scope="module")
def recipe(data):
    return recipe_from_mapping(worker.recipe_mapping(data, checkpoint=CHECKPOINT))


@pytest.fixture(scope="module")
def run(recipe, folder):
    """A run that nothing interrupts."""
    return train(recipe, folder / "whole", quiet=True)


def test_run_folder(run, recipe):
    names = {str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file()}
    expected = {"recipe.yaml", "config.json", "data.json", "model.weights.h5", "tokenizer.json"}
    expected |= {"tokenizer_config.json", "metrics.json", "history.csv", "curves.png"}
    expected |= {"checkpoints/best/model.weights.h5", "checkpoints/last/state.npz"}
    assert {name for name in names if not name.startswith("tensorboard/")} == expected
    assert {name.split("/")[1] for name in names if name.startswith("tensorboard/")} == {
        "train",
        "validation",
    }
    assert (run.folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert load_recipe(run.folder / "recipe.yaml") == recipe


def test_history(run):
    assert [row["update"] for row in run.history] == [6, 12]
    assert [row["epoch"] for row in run.history] == [1, 2]
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"} <= set(run.history[0])
    assert run.history[1]["loss"] < run.history[0]["loss"]


def test_metrics(run):
    metrics = run.metrics
    assert {"f1", "precision", "recall", "token_accuracy", "groups"} <= set(metrics["validation"])
    assert set(metrics["validation"]["groups"]) == {"1", "2", "3", "4", "5", "6"}
    assert metrics["updates"] == 12
    assert metrics["updates_per_second"] > 0
    assert metrics["parameters"] == run.model.count_params()
    assert metrics["examples"] == {"train": 24, "validation": 24, "test": 0}
    assert metrics["versions"]["keras"] == keras.__version__
    assert len(metrics["data_sha256"]) == 64


def test_run_is_loaded_again(run):
    again = zoo.Run.load(run.folder)
    assert again.recipe == run.recipe
    assert again.labels == ["B-LONG", "O"]
    assert again.config.vocab_size == again.tokenizer.vocab_size
    for mine, theirs in zip(again.model.weights, run.model.weights, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
    examples = [{"tokens": ["three", "ten"], "tags": ["B-LONG", "O"], "size": 2}]
    assert evaluate_run(again, examples)["count"] == 1


def test_events_can_be_read(run):
    import tensorflow as tf

    found = []
    for path in sorted((run.folder / "tensorboard" / "validation").iterdir()):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
    losses = [(step, value) for step, tag, value in found if tag == "loss"]
    assert losses == [(row["update"], pytest.approx(row["val_loss"])) for row in run.history]


def final_state(folder):
    return read_state(folder / "checkpoints" / "last" / "state.npz")


def test_killed_and_stopped_run_ends_as_the_whole_one(run, recipe, folder, monkeypatch):
    """SIGKILL in round 1, then SIGTERM in the middle of round 2, then on to the end."""
    out = folder / "stopped"
    path = folder / "recipe.json"
    path.write_text(json.dumps(to_mapping(recipe)), encoding="utf-8")
    process = worker.start([str(path), str(out), "--signal-at", "6"])
    worker.finish(process)
    assert process.returncode == -signal.SIGKILL
    assert final_state(out)[1].update == 4

    count = TrainingLoop.on_train_batch_end

    def count_and_stop(self, batch, logs=None):
        if self.progress.update + 1 == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        count(self, batch, logs)

    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "on_train_batch_end", count_and_stop)
        with pytest.raises(InterruptedTrainingError, match="SIGTERM after update 9 of 12"):
            train(recipe, out, resume=True, quiet=True)
    assert signal.getsignal(signal.SIGTERM) is handler
    assert final_state(out)[1].update == 9
    assert not (out / "metrics.json").exists()

    resumed = train(recipe, out, resume=True, quiet=True)
    (ours, progress), (theirs, expected) = final_state(out), final_state(run.folder)
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    assert progress.trace == expected.trace  # the loss of every update
    assert progress.best == expected.best
    facts = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "update")
    for mine, whole in zip(resumed.history, run.history, strict=True):
        assert [mine[name] for name in facts] == [whole[name] for name in facts]
    for mine, whole in zip(resumed.model.weights, run.model.weights, strict=True):
        np.testing.assert_array_equal(mine.numpy(), whole.numpy())


def test_resuming_a_finished_run_changes_nothing(run, recipe):
    before = (run.folder / "metrics.json").read_bytes()
    assert train(recipe, run.folder, resume=True).metrics == run.metrics
    assert (run.folder / "metrics.json").read_bytes() == before


def test_existing_folder_is_not_overwritten(run, recipe, tmp_path):
    with pytest.raises(RunError, match="holds a run already"):
        train(recipe, run.folder)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        train(recipe, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_changed_recipe_is_not_resumed(run, recipe):
    training = dataclasses.replace(recipe.training, batch_size=8, seed=1)
    with pytest.raises(RunError) as caught:
        train(dataclasses.replace(recipe, training=training), run.folder, resume=True)
    assert "training.batch_size: 4 in the folder, 8 now" in str(caught.value)
    assert "training.seed: 7 in the folder, 1 now" in str(caught.value)


def test_changed_data_are_noticed(run, recipe, data, folder):
    unfinished = folder / "unfinished"
    unfinished.mkdir()
    for name in ("recipe.yaml", "config.json", "data.json", "tokenizer.json"):
        (unfinished / name).write_bytes((run.folder / name).read_bytes())
    (unfinished / "tokenizer_config.json").write_text("{}")
    text = data.read_text(encoding="utf-8")
    data.write_text(text.replace("seven", "heaven"), encoding="utf-8")
    try:
        with pytest.raises(RunError, match="data have changed"):
            train(recipe, unfinished, resume=True, quiet=True)
    finally:
        data.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"early_stopping": {"metric": "val_acuracy"}}, "did you mean 'val_accuracy'"),
        ({"best": {"metric": "val_f1"}}, "training.best.metric: 'val_f1' is not measured"),
    ],
)
def test_unknown_metric_is_told_before_training(data, tmp_path, changes, expected):
    recipe = recipe_from_mapping(worker.recipe_mapping(data, **changes))
    with pytest.raises(ConfigError) as caught:
        train(recipe, tmp_path / "run", quiet=True)
    assert expected in str(caught.value)


def test_folder_that_is_no_run(tmp_path, run):
    with pytest.raises(RunError, match="no run folder"):
        zoo.Run.load(tmp_path)
    for name in ("recipe.yaml", "config.json"):
        (tmp_path / name).write_bytes((run.folder / name).read_bytes())
    with pytest.raises(RunError, match="no weights yet"):
        zoo.Run.load(tmp_path)


def test_command_trains_with_early_stopping(data, tmp_path):
    """`--set` reaches training; with a rate too small to learn, patience ends the run."""
    path = tmp_path / "words.yaml"
    mapping = worker.recipe_mapping(data, early_stopping={"patience": 1, "min_delta": 0.5})
    path.write_text(dump(mapping), encoding="utf-8")
    arguments = [str(path), "--out", str(tmp_path / "run"), "--quiet"]
    arguments += ["--set", "training.epochs=5", "--set", "training.optimizer.learning_rate=1e-9"]
    result = CliRunner().invoke(train_command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "token_accuracy" in result.output
    run = zoo.Run.load(tmp_path / "run")
    assert run.recipe.training.epochs == 5
    assert [row["round"] for row in run.history] == [1, 2]


def test_interrupted_command_says_how_to_go_on(data, tmp_path, monkeypatch):
    path = tmp_path / "words.yaml"
    path.write_text(dump(worker.recipe_mapping(data)), encoding="utf-8")

    def stop(recipe, out, resume, quiet):
        raise InterruptedTrainingError("Stopped by SIGINT after update 3 of 12.")

    monkeypatch.setattr("zoo.training.trainer.train", stop)
    out = tmp_path / "my run"
    arguments = [str(path), "--out", str(out), "--set", "training.epochs=3"]
    result = CliRunner().invoke(train_command, arguments)
    assert result.exit_code == 130
    assert "Stopped by SIGINT after update 3" in result.output
    assert f"zoo train {path} --set training.epochs=3 --out '{out}' --resume" in result.output


def test_evaluation_settings_reach_the_metrics(run, data, folder):
    mapping = to_mapping(run.recipe)
    mapping["evaluation"] |= {"metrics": ["f1"], "group": None, "limit": 3}
    again = zoo.Run(run.folder)
    again.__dict__["recipe"] = recipe_from_mapping(mapping)
    examples = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    assert set(evaluate_run(again, examples)) == {"count", "f1"}
