"""Published shapes, of families and without a checkpoint form: their sizes, counted without
allocating them.
"""

import dataclasses

import numpy as np
import pytest

import zoo
from zoo.checkpoints.count import count_parameters
from zoo.checkpoints.load import preset_config
from zoo.families import family, model_types
from zoo.presets import SHAPES

ROUNDED = 0.035
"""Papers round, and state the size of the vocabulary only nearly."""


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_has_the_published_size(name) -> None:
    shape = SHAPES[name]
    counted = count_parameters(shape.config, shape.task)
    assert counted == pytest.approx(shape.parameters, rel=ROUNDED)


@pytest.mark.parametrize("model_type", model_types())
def test_the_smallest_preset_of_a_family_has_its_published_size(model_type) -> None:
    found = family(model_type)
    name = min(found.presets, key=lambda name: found.presets[name].parameters)
    preset = found.presets[name]
    assert count_parameters(preset_config(found, name), preset.task) == preset.parameters


def test_gpt_3_is_dense_and_banded_in_turn() -> None:
    config = SHAPES["gpt-3-175b"].config
    assert [config.layer_window(i) for i in range(4)] == [None, 256, None, 256]


def test_the_2017_transformer_is_counted_by_hand() -> None:
    """Attention, feed-forward and norms of 6 and 6 layers, and one embedding."""
    width, inner = 512, 2048
    attention = 4 * (width * width + width)
    feed_forward = 2 * width * inner + inner + width
    encoder = attention + feed_forward + 2 * 2 * width
    decoder = 2 * attention + feed_forward + 3 * 2 * width
    shape = SHAPES["transformer-base"]
    assert count_parameters(shape.config, shape.task) == 6 * (encoder + decoder) + 37000 * width


def test_the_2017_transformer_sees_its_positions_as_the_paper_has_them() -> None:
    """PE(pos, 2i) = sin(pos / 10000^(2i / d)), PE(pos, 2i + 1) the cosine, on scaled embeddings."""
    base = SHAPES["transformer-base"]
    width = base.config.hidden_dim
    config = dataclasses.replace(
        base.config, vocab_size=11, num_layers=1, num_decoder_layers=1, dropout=0.0
    )
    model = zoo.TaskModel(config, base.task)
    ids = np.array([[3, 9, 1]])
    trail = []
    model.encoder(ids, trail=trail.append)
    table = np.asarray(model.encoder.embeddings.tokens.table)
    expected = table[ids[0]] * width**0.5
    for position in range(3):
        for i in range(width // 2):
            angle = position / 10000 ** (2 * i / width)
            expected[position, 2 * i : 2 * i + 2] += np.sin(angle), np.cos(angle)
    np.testing.assert_allclose(np.asarray(trail[0])[0], expected, atol=1e-5)
