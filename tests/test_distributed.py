"""Two replicas and two workers train as one device does, with unequal token counts per replica."""

import json
import socket

import numpy as np
import pytest
import training_worker as worker
from tolerances import close

from zoo.errors import ConfigError
from zoo.training.checkpoint import read_state
from zoo.training.load import recipe_from_mapping
from zoo.training.trainer import _check_combination, train

FACTS = ("loss", "accuracy", "val_loss", "val_accuracy")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("distributed")


@pytest.fixture(scope="module")
def data(folder):
    return worker.write_data(folder)


def mapping(data, **training):
    # Dropout draws per replica, so that only a run without it can be compared number by number.
    return worker.recipe_mapping(data, dropout=0.0, **training)


@pytest.fixture(scope="module")
def one_device(folder, data):
    run = train(recipe_from_mapping(mapping(data)), folder / "one", quiet=True)
    return run, *read_state(run.folder / "checkpoints" / "last" / "state.npz")


def start(folder, data, name, arguments=(), tf_config="{}", out=None, **training):
    path = folder / f"{name}.json"
    path.write_text(json.dumps(mapping(data, **training)), encoding="utf-8")
    weights = folder / f"{name}.npz"
    arguments = [str(path), str(folder / (out or name)), "--weights", str(weights), *arguments]
    return worker.start(arguments, TF_CONFIG=tf_config), weights


def check_run(folder, one_device):
    """A distributed run's checkpoint and history against those of one device."""
    run, state, progress = one_device
    ours, our_progress = read_state(folder / "checkpoints" / "last" / "state.npz")
    names = [name for name in state if name.startswith("model/") and "seed" not in name]
    for name in names:
        close(ours[name], state[name], "replica_weights")
    assert len(our_progress.trace) == len(progress.trace) == 12  # the loss of each update
    close(np.array(our_progress.trace)[:, 1], np.array(progress.trace)[:, 1], "replica_loss")
    for mine, theirs in zip(our_progress.history, progress.history, strict=True):
        for fact in FACTS:
            close(mine[fact], theirs[fact], "replica_loss")
    assert (folder / "metrics.json").is_file()
    assert run.metrics["replicas"] == 1
    assert json.loads((folder / "metrics.json").read_text())["replicas"] == 2


def test_data_are_uneven(data):
    """Halves of the same batch hold different numbers of tokens."""
    rows = [len(json.loads(line)["tokens"]) for line in data.read_text().splitlines()]
    assert len(set(rows)) > 3


def test_mirrored_replicas_equal_one_device(folder, data, one_device):
    process, weights = start(folder, data, "mirrored", ["--logical-cpus", "2"], strategy="mirrored")
    _, errors = worker.finish(process)
    assert process.returncode == 0, errors[-3000:]
    check_run(folder / "mirrored", one_device)
    with np.load(weights) as values:
        replicas = {name: values[name] for name in values}
    second = [name for name in replicas if name.startswith("1/")]
    assert len(second) == len(replicas) / 2
    for name in second:
        np.testing.assert_array_equal(replicas[name], replicas[f"0/{name[2:]}"])


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def test_workers_equal_one_device(folder, data, one_device):
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    started = []
    try:
        for index in range(2):
            place = {"type": "worker", "index": index}
            tf_config = json.dumps({"cluster": {"worker": addresses}, "task": place})
            settings = {"out": "workers", "strategy": "multi_worker"}
            started.append(start(folder, data, f"worker{index}", tf_config=tf_config, **settings))
        for process, _ in started:
            _, errors = worker.finish(process)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process, _ in started:
            process.kill()
            process.wait()
    check_run(folder / "workers", one_device)
    with np.load(started[0][1]) as first, np.load(started[1][1]) as second:
        assert set(first) == set(second)
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps"),
        ({"jit_compile": True}, "jit_compile"),
    ],
)
def test_what_does_not_go_with_replicas(data, changes, expected):
    recipe = recipe_from_mapping(mapping(data, strategy="mirrored", **changes))
    _check_combination(recipe, replicas=1)
    with pytest.raises(ConfigError, match=expected):
        _check_combination(recipe, replicas=2)
