"""Drawing tokens: the warpers, the draw, log-probabilities."""

import numpy as np
import pytest

from serve.decoding.sampling import draw, log_softmax, token_logprobs, top, warp
from serve.decoding.settings import GenerationSettings
from serve.errors import InputError

WARPERS = [
    {}, {"temperature": 0.5}, {"top_k": 1}, {"top_k": 2, "temperature": 3.0}, {"top_k": 200},
    {"top_p": 0.5}, {"top_p": 0.999, "temperature": 5.0}, {"top_p": 1.0},
    {"top_k": 20, "top_p": 0.7}, {"min_p": 0.1}, {"min_p": 1.0}, {"min_p": 1e-6},
    {"typical_p": 0.3}, {"typical_p": 0.95}, {"typical_p": 1.0},
    {"temperature": 1.7, "top_k": 40, "top_p": 0.95, "min_p": 0.02, "typical_p": 0.8},
]  # fmt: skip


def sampled(**given):
    return GenerationSettings(do_sample=True, **given)


def reference_probabilities(scores, settings, least=1):
    """The warpers one after the other on the whole row, by sorting, in float64."""
    scores = scores.astype(np.float64) / settings.temperature

    def chances():
        weights = np.exp(scores - scores.max())
        return weights / weights.sum()

    if settings.top_k is not None:
        k = min(max(settings.top_k, least), len(scores))
        scores = np.where(scores < np.sort(scores)[-k], -np.inf, scores)
    if settings.top_p is not None and settings.top_p < 1:
        rising = np.argsort(scores, kind="stable")
        below = np.cumsum(chances()[rising]) <= 1 - settings.top_p
        below[-least:] = False
        scores[rising[below]] = -np.inf
    if settings.min_p is not None:
        share = chances() / chances().max()
        few = share < settings.min_p
        few[np.argsort(-share, kind="stable")[:least]] = False
        scores[few] = -np.inf
    if settings.typical_p is not None and settings.typical_p < 1:
        share = chances()
        information = -np.log(share, out=np.full_like(share, -np.inf), where=share > 0)
        distance = np.abs(information - (share * np.where(share > 0, information, 0)).sum())
        order = np.argsort(distance, kind="stable")
        last = min(int((np.cumsum(share[order]) < settings.typical_p).sum()), len(order) - 1)
        far = distance > distance[order[last]]
        far[order[:least]] = False
        scores[far] = -np.inf
    return chances()


def rows(size):
    """Rows of scores: smooth, with many ties, with tokens ruled out."""
    rng = np.random.default_rng(size)
    smooth = (rng.normal(size=size) * 3).astype(np.float32)
    tied = rng.integers(-2, 3, size).astype(np.float32)
    holes = np.where(rng.random(size) < 0.5, -np.inf, smooth).astype(np.float32)
    holes[0] = 0.5
    return {"smooth": smooth, "tied": tied, "holes": holes}


@pytest.mark.parametrize("kind", ["smooth", "tied", "holes"])
@pytest.mark.parametrize("size", [3, 300, 50_000])
@pytest.mark.parametrize("given", WARPERS)
def test_draw_follows_the_distribution(size, given, kind):
    scores, settings = rows(size)[kind], sampled(**given)
    expected = reference_probabilities(scores, settings)
    count = 200
    drawn = np.bincount(
        [draw(scores, settings, (i + 0.5) / count) for i in range(count)], minlength=size
    )
    assert not drawn[expected == 0].any()
    # Evenly spread uniforms: every token comes up as often as it should, to within one.
    assert np.abs(drawn / count - expected).max() < 1.5 / count


@pytest.mark.parametrize("kind", ["smooth", "tied", "holes"])
@pytest.mark.parametrize("size", [3, 300, 50_000])
@pytest.mark.parametrize("given", WARPERS)
def test_warp_leaves_the_same_tokens(size, given, kind):
    scores, settings = rows(size)[kind], sampled(**given)
    expected = reference_probabilities(scores, settings)
    warped = warp(scores, settings)
    assert warped.dtype == np.float32
    assert np.array_equal(warped > -np.inf, expected > 0)
    assert np.allclose(np.exp(log_softmax(warped)), expected, atol=1e-6)
    left = np.flatnonzero(expected)
    # A uniform number a little above 0 draws the first token that is left, one near 1 the last.
    assert draw(scores, settings, 0.0) == left[0]
    assert draw(scores, settings, np.nextafter(1.0, 0.0)) in left


def test_random_warpers_leave_what_the_reference_leaves():
    rng = np.random.default_rng(5)
    for _ in range(300):
        size = int(rng.integers(1, 400 if rng.random() < 0.5 else 5000))
        scores = np.round(rng.normal(size=size) * 4, int(rng.integers(0, 3))).astype(np.float32)
        given = {
            "temperature": float(rng.uniform(0.3, 3)),
            "top_k": int(rng.integers(1, 60)),
            "top_p": float(rng.uniform(0.05, 1)),
            "min_p": float(rng.uniform(0.001, 0.5)),
            "typical_p": float(rng.uniform(0.05, 0.99)),
        }
        given = {name: value for name, value in given.items() if rng.random() < 0.6}
        expected = reference_probabilities(scores, sampled(**given)) > 0
        assert np.array_equal(warp(scores, sampled(**given)) > -np.inf, expected), given


@pytest.mark.parametrize("given", [{"top_k": 1}, {"top_p": 0.01}, {"min_p": 1.0}])
def test_beams_leave_a_token_beside_the_end_tokens(given):
    scores = np.arange(50, dtype=np.float32)
    one = warp(scores, sampled(**given))
    assert (one > -np.inf).sum() == 1
    beams = warp(scores, sampled(**given, num_beams=2, eos_token_id=(49, 48)))
    assert np.flatnonzero(beams > -np.inf).tolist() == [47, 48, 49]
    endless = warp(scores, sampled(**given, num_beams=2))
    assert np.flatnonzero(endless > -np.inf).tolist() == [48, 49]


def test_typical_leaves_out_the_obvious():
    """One token of 30 % among many of 1 %: its information lies further from the entropy."""
    scores = np.log(np.array([0.3, *[0.01] * 70], np.float32))
    assert np.flatnonzero(warp(scores, sampled(typical_p=0.3)) > -np.inf).tolist() == [
        *range(1, 71)
    ]
    assert np.flatnonzero(warp(scores, sampled(top_p=0.2)) > -np.inf).tolist() == [0]


def test_renormalized_scores_are_a_distribution():
    scores = np.arange(5, dtype=np.float32)
    warped = warp(scores, sampled(top_k=3, temperature=0.5, renormalize_logits=True))
    assert np.isclose(np.exp(warped).sum(), 1)
    assert np.array_equal(warped > -np.inf, [False, False, True, True, True])


def test_a_row_without_tokens_is_refused():
    with pytest.raises(InputError, match="no token is left to draw"):
        draw(np.full(7, -np.inf, np.float32), sampled(top_p=0.5, min_p=0.1, typical_p=0.5), 0.5)


def test_draw_never_gives_a_token_that_is_ruled_out():
    """Rounding at the ends of blocks may not lead to a neighbour of no weight."""
    scores = np.full(20_000, -np.inf, np.float32)
    scores[[255, 256, 9999]] = [1.0, 1e-3, 1.0]
    uniforms = [0.0, np.nextafter(1.0, 0.0), *np.linspace(0, 0.999999, 1999)]
    assert {draw(scores, sampled(), uniform) for uniform in uniforms} == {255, 256, 9999}


@pytest.mark.parametrize("k", [1, 5, 64, 1000])
def test_top_equals_a_stable_sort(k):
    rng = np.random.default_rng(k)
    for logits in (rng.normal(size=50_257), rng.integers(0, 9, 5000), np.zeros(3000)):
        logits = logits.astype(np.float32)
        assert np.array_equal(top(logits, k), np.argsort(-logits, kind="stable")[:k])


def test_log_softmax():
    rng = np.random.default_rng(0)
    scores = (rng.normal(size=(2, 3, 5000)) * 30).astype(np.float32)
    scores[0, 0, :4000] = -np.inf
    wide = scores.astype(np.float64)
    expected = wide - np.log(np.exp(wide - wide.max(-1, keepdims=True)).sum(-1, keepdims=True))
    expected -= wide.max(-1, keepdims=True)
    found = np.array([[log_softmax(row) for row in rows] for rows in scores])
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-4)
    assert (log_softmax(np.full(4, -np.inf, np.float32)) == -np.inf).all()


def test_logprobs_of_tokens():
    logits = np.random.default_rng(1).normal(size=3000).astype(np.float32) * 5
    expected = log_softmax(logits)
    found = token_logprobs(logits, 17, 3)
    order = np.argsort(-logits, kind="stable")[:3].tolist()
    assert found.token == 17
    assert np.isclose(found.logprob, expected[17], atol=1e-5)
    assert [token for token, _ in found.top] == order
    assert np.allclose([value for _, value in found.top], expected[order], atol=1e-5)
    assert token_logprobs(logits, 17, 0).top == ()
