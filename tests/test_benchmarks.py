"""What the benchmarks rest on: the same work for every engine, weights that write a circle, bytes
that a step reads.
"""

import numpy as np
import pytest

import export
import zoo
from benchmarks import sizes, steps
from benchmarks.beside import engines
from benchmarks.references import work


def test_every_engine_is_given_the_same() -> None:
    rows, counts = work.requests()
    assert (rows, counts) == work.requests()
    assert len(rows) == len(counts) == work.REQUESTS
    assert all(work.PROMPTS[0] <= len(row) <= work.PROMPTS[1] for row in rows)
    assert all(work.ANSWERS[0] <= count <= work.ANSWERS[1] for count in counts)
    assert len(set(map(len, rows))) > 8
    assert len(set(counts)) > 8
    assert work.words([[7, 9]]) == [["w7", "w9"]]


def test_a_ratio_is_that_to_the_best_of_those_with_a_figure() -> None:
    rows = [
        {"engine": "ours", "a": 6.0, "b": 5.0},
        {"engine": "one", "a": 2.0},
        {"engine": "other", "a": 3.0},
    ]
    assert engines.ratio(rows, "ours", ["one", "other"]) == {
        "engine": "ours / one or other",
        "a": pytest.approx(2.0),
    }


def test_a_circle_is_written_round_and_round() -> None:
    config = zoo.DecoderConfig(
        vocab_size=64, hidden_dim=96, num_layers=2, num_heads=4, tie_embeddings=False
    )
    model = zoo.TaskModel(config, "text-generation")
    sizes.circle(model, 8)
    found = np.asarray(model.generate(np.array([[17, 18]]), max_new_tokens=16))[0].tolist()
    assert found == [16 + (19 - 16 + i) % 8 for i in range(16)]


def test_the_bytes_of_a_step_leave_out_tables_that_are_looked_up(tmp_path) -> None:
    config = zoo.DecoderConfig(
        vocab_size=500, hidden_dim=24, num_layers=1, num_heads=3, tie_embeddings=False
    )
    model = zoo.TaskModel(config, "text-generation")
    manifest = export.to_onnx(model, tmp_path / "bundle", verify=False)
    weights = 4 * model.count_params()
    tables = 4 * (500 + config.max_length) * 24  # of tokens and positions
    read = steps.read_bytes(manifest.path(manifest.graphs["model"].file))
    assert weights - tables <= read < weights - tables + 500  # numbers of the graph itself
