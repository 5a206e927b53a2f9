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
