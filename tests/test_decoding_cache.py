"""Rows of a cache: moved, shortened, made alike, and what they are answered then."""

import numpy as np
import pytest
import serve_bundles as bundles

from serve.decoding.generator import Generator

ROWS = ([5, 6, 7], [5, 6, 7, 8, 9], [11, 12])


@pytest.fixture(scope="module", params=["buffer", "grow"])
def decoder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "d"
    return Generator(bundles.decoder_bundle(folder, request.param))


def answered(decoder, tokens):
    """Logits behind some tokens, read at once."""
    _, logits = decoder.start([tokens], [tokens], 1)
    return logits[0]


@pytest.mark.parametrize("source", range(3))
@pytest.mark.parametrize("target", range(3))
def test_a_row_is_made_like_another(decoder, source, target):
    """A row that began alike and went on further, too: it has to forget the rest."""
    cache = decoder.new_cache(3, 20)
    cache.add(ROWS)
    cache.copy(source, target)
    held = [ROWS[source] if row == target else ROWS[row] for row in range(3)]
    logits = np.array(cache.step(np.array([4, 4, 4])))
    for found, tokens in zip(logits, held, strict=True):
        np.testing.assert_allclose(found, answered(decoder, [*tokens, 4]), atol=1e-4)
    logits = np.array(cache.step(np.array([10, 10, 10])))
    for found, tokens in zip(logits, held, strict=True):
        np.testing.assert_allclose(found, answered(decoder, [*tokens, 4, 10]), atol=1e-4)


def test_a_row_goes_on_from_where_it_was_shortened(decoder):
    cache = decoder.new_cache(3, 20)
    cache.add(ROWS)
    cache.trim(1, 2)
    logits = cache.step(np.array([4, 4, 4]))
    np.testing.assert_allclose(logits[1], answered(decoder, [5, 6, 4]), atol=1e-4)


@pytest.fixture(scope="module", params=["buffer", "grow"])
def seq2seq(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "s"
    return Generator(bundles.seq2seq_bundle(folder, request.param))


def test_what_a_long_input_took_is_given_back(seq2seq):
    """While others run, once the next one comes; and all of it when none is left."""
    cache = seq2seq.new_cache(4, 20)
    inputs = [[5, 6], [7] * 60, [8, 9, 10], [11]]
    for ids in inputs[:2]:
        cache.add([[0]], seq2seq.encode([ids]))

    def width():
        return {one.shape[2] for one in cache.memory.of(0, 1).values() if one.ndim == 4}

    assert width() == {60}
    cache.copy(0, 1)
    cache.add([[0]], seq2seq.encode([inputs[2]]))
    assert width() == {3}
    logits = np.array(cache.step(np.array([4, 4, 4])))
    for found, ids in zip(logits, [inputs[0], inputs[0], inputs[2]], strict=True):
        _, expected = seq2seq.start([ids], [[0, 4]], 1)
        np.testing.assert_allclose(found, expected[0], atol=1e-4)
    cache.resize(0)
    assert not cache.memory._arrays
    cache.add([[0]], seq2seq.encode([inputs[3]]))
    assert width() == {1}


def test_steps_of_any_number_of_rows_share_what_they_write_to(tmp_path):
    generator = Generator(bundles.seq2seq_bundle(tmp_path / "s"))
    cache = generator.new_cache(6, 30)
    for rows in range(6):
        cache.add([[0]], generator.encode([[5 + rows, 6]]))
        cache.step(np.full(rows + 1, 4))
    held = list(cache._bound.values())
    assert len(held) == 6
    assert all(np.shares_memory(one.logits, held[0].logits) for one in held)
    assert sum(bool(one.memory) for one in held) == 1  # the others hold an encoder's old results
    for rows in range(6, 0, -1):
        cache.resize(rows)
        cache.step(np.full(rows, 4))
    assert len(cache._bound) == 6


def test_rows_that_are_bound_follow_what_they_read(seq2seq):
    inputs = [[5, 6], [8, 9, 10]]
    cache = seq2seq.new_cache(3, 20)
    cache.add([[0], [0]], seq2seq.encode(inputs))
    cache.step(np.array([4, 4]))
    cache.copy(0, 1)
    logits = np.array(cache.step(np.array([7, 7])))
    _, expected = seq2seq.start([inputs[0]], [[0, 4, 7]], 1)
    np.testing.assert_allclose(logits, np.repeat(expected, 2, axis=0), atol=1e-4)


def test_a_graph_that_cannot_share_gets_a_line_for_each_row(seq2seq):
    cache = seq2seq.new_cache(4, 20)
    cache.add([[0]], seq2seq.encode([[5, 6]]))
    cache.resize(3)
    for shared, lines in ((True, 1), (False, 3)):
        cache.memory.shared = shared
        assert {len(array) for array in cache.memory.of(0, 3).values()} == {lines}
