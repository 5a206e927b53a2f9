"""Classes against numpy: one or several labels, windows of long texts, zero-shot, masks."""

import json
import shutil

import numpy as np
import pytest
import serve_bundles as bundles

import serve
from serve.errors import InputError

LABELS = ["good", "bad", "ugly"]
INFERENCE = ["Contradiction", "neutral", "ENTAILMENT"]
LONG = "the old house by the sea is red, and a cat sat on the mat. " * 5
CANDIDATES = ["the sea", "bread and milk", "a cold wind"]


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("e")
    made = {}

    def get(name, labels, task=None):
        if name not in made:
            made[name] = bundles.encoder_bundle(folder / name, "text-classification", labels)
        return serve.load(made[name], task=task)

    return get


def logits_of(pipeline, labels, ids, types):
    """The classifier in numpy, of one row without padding."""
    weights = bundles.encoder_weights(
        pipeline.tokenizer.backend.get_vocab_size(), "text-classification", labels
    )
    weights["source"] = weights["source"][ids] + 0.125 * np.array(types)[:, None]
    return bundles.encode(weights, np.arange(len(ids)))[0] @ weights["logits.w"]


def windows(pipeline, labels, first, second=None, length=32):
    """Logits of a text by sliding by hand, the first text cut into overlapping windows."""
    encode = pipeline.tokenizer.backend.encode
    ids = encode(first, add_special_tokens=False).ids
    rest = [] if second is None else [*encode(second, add_special_tokens=False).ids, 3]
    room = length - 2 - len(rest)
    step = room - room // 4
    logits, weights, seen = [], [], 0
    for begin in range(0, len(ids), step):
        part = ids[begin : begin + room]
        row = [2, *part, 3, *rest]
        logits.append(logits_of(pipeline, labels, row, [0] * (len(part) + 2) + [1] * len(rest)))
        weights.append(begin + len(part) - seen)
        seen = begin + len(part)
        if seen == len(ids):
            break
    assert sum(weights) == len(ids)
    return np.average(logits, axis=0, weights=weights), len(logits)


def test_windows_are_averaged_by_their_new_tokens(opened):
    pipeline = opened("plain", LABELS)
    short, long = pipeline(["a red boat", LONG])
    assert (short.windows, short.truncated) == (1, False)
    logits, count = windows(pipeline, LABELS, LONG)
    assert (long.windows, long.truncated) == (count, False)
    assert count > 2
    expected = bundles.softmax(logits)
    assert [long.scores[label] for label in LABELS] == pytest.approx(expected.tolist(), abs=1e-5)
    assert pipeline(LONG) == long
    assert pipeline(LONG, stride=20).windows > count
    cut = pipeline(LONG, long="cut")
    assert (cut.windows, cut.truncated) == (1, True)
    beginning = pipeline(LONG[: len(LONG) // 5], long="error")
    assert abs(cut.score - beginning.score) > 1e-4
    with pytest.raises(InputError, match="stride=30: windows of 32 tokens have 30"):
        pipeline(LONG, stride=30)


def test_one_label(opened):
    pipeline = opened("plain", LABELS)
    result = pipeline("a red boat", top_k=2)
    assert list(result.scores) == list(pipeline("a red boat").scores)[:2]
    assert result.labels is None
    assert str(result) == f"{result.label}\t{result.score:.4f}"
    with pytest.raises(InputError, match=r"threshold=0.3 means nothing where one label holds"):
        pipeline("a red boat", threshold=0.3)
    for name, value in (("top_k", 0), ("threshold", 2), ("multi_label", "yes"), ("stride", -1)):
        with pytest.raises(InputError, match=f"^{name}="):
            pipeline("a red boat", **{"multi_label": True, name: value})
    with pytest.raises(InputError, match="it knows long, stride, multi_label, threshold, top_k"):
        pipeline("a red boat", top_p=0.5)


def test_several_labels(opened):
    pipeline = opened("plain", LABELS)
    ids = pipeline.tokenizer.backend.encode("a red boat").ids
    logits = logits_of(pipeline, LABELS, ids, [0] * len(ids))
    expected = 1 / (1 + np.exp(-logits))
    order = np.argsort(-expected)
    result = pipeline("a red boat", multi_label=True)
    assert list(result.scores) == [LABELS[at] for at in order]
    assert list(result.scores.values()) == pytest.approx(expected[order].tolist(), abs=1e-5)
    assert result.labels == tuple(LABELS[at] for at in order if expected[at] >= 0.5)
    assert 0 < len(result.labels) < 3
    assert json.loads(json.dumps(result.to_dict()))["labels"] == list(result.labels)
    every = pipeline("a red boat", multi_label=True, threshold=0)
    assert every.labels == tuple(every.scores)
    assert str(every).count("\t") == 5
    none = pipeline("a red boat", multi_label=True, threshold=1)
    assert (none.labels, str(none)) == ((), "")
    assert none.label == result.label
    second = pipeline("a red boat", multi_label=True, threshold=0, top_k=2)
    assert second.labels == tuple(every.scores)[:2]


def declared(pipeline, folder, **facts):
    """The same bundle with other facts; a tokenizer trained again might be another."""
    shutil.copytree(pipeline.manifest.folder, folder)
    pipeline.manifest.model_copy(update=facts).save(folder)
    return serve.load(folder)


def test_the_manifest_says_what_the_logits_are(opened, tmp_path):
    plain = opened("plain", LABELS)
    several = declared(plain, tmp_path / "several", problem_type="multi_label_classification")
    assert several("a red boat") == plain("a red boat", multi_label=True)
    assert several("a red boat", threshold=0.1).labels is not None
    assert several("a red boat", multi_label=False) == plain("a red boat")
    one = opened("one", LABELS[:1])
    measured = declared(one, tmp_path / "measured", problem_type="regression")
    value = measured("a red boat").score
    assert one("a red boat").score == pytest.approx(1 / (1 + np.exp(-value)))


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("multi_label", [False, True])
def test_zero_shot(opened, long, multi_label):
    pipeline = opened("inference", INFERENCE, "zero-shot-classification")
    text = LONG if long else "the wind is cold"
    template = "it is about {}, and the sun"
    rows, counts = [], []
    for label in CANDIDATES:
        logits, count = windows(pipeline, INFERENCE, text, template.replace("{}", label))
        rows.append(logits)
        counts.append(count)
    rows = np.exp(np.array(rows))
    if multi_label:
        expected = rows[:, 2] / (rows[:, 2] + rows[:, 0])
    else:
        expected = rows[:, 2] / rows[:, 2].sum()
    settings = {"hypothesis_template": template, "multi_label": multi_label}
    result = pipeline(text, candidate_labels=CANDIDATES, **settings)
    assert list(result.scores) == [CANDIDATES[at] for at in np.argsort(-expected)]
    found = [result.scores[label] for label in CANDIDATES]
    assert found == pytest.approx(expected.tolist(), abs=1e-5)
    assert result.windows == max(counts)
    assert (result.windows > 2) == long
    if multi_label:
        assert result.labels == tuple(
            label for label, score in result.scores.items() if score >= 0.5
        )
    texts = [text, "a red boat", text]
    for alone, together in zip(
        (pipeline(one, candidate_labels=",".join(CANDIDATES), **settings) for one in texts),
        pipeline(texts, candidate_labels=CANDIDATES, **settings),
        strict=True,
    ):
        assert list(alone.scores) == list(together.scores)
        assert list(alone.scores.values()) == pytest.approx(
            list(together.scores.values()), abs=1e-5
        )


def test_zero_shot_with_one_candidate_weighs_it_against_contradiction(opened):
    pipeline = opened("inference", INFERENCE, "zero-shot-classification")
    assert pipeline.task == "zero-shot-classification"
    alone = pipeline("the wind is cold", candidate_labels="the sea")
    several = pipeline("the wind is cold", candidate_labels=CANDIDATES, multi_label=True)
    assert alone.score == pytest.approx(several.scores["the sea"])
    assert 0 < alone.score < 1


def test_zero_shot_refuses(opened):
    pipeline = opened("inference", INFERENCE, "zero-shot-classification")
    with pytest.raises(InputError, match="candidate_labels is empty"):
        pipeline("the sea")
    with pytest.raises(InputError, match="'a' is there twice"):
        pipeline("the sea", candidate_labels=["a", "b", "a"])
    with pytest.raises(InputError, match="candidate_labels: 3 is no label"):
        pipeline("the sea", candidate_labels=["a", 3])
    with pytest.raises(InputError, match=r"hypothesis_template='about'.*where the label goes"):
        pipeline("the sea", candidate_labels=["a"], hypothesis_template="about")
    with pytest.raises(InputError, match="takes one text per input"):
        pipeline(("the sea", "a boat"), candidate_labels=["a"])
    with pytest.raises(InputError, match=r"^input 1: 76 tokens are longer"):
        pipeline(["sea", "the sea " * 36], candidate_labels=["a"], long="error",
                 hypothesis_template="{}")  # fmt: skip


def test_two_classes_of_inference(opened):
    names = ["entailment", "not_entailment"]
    pipeline = opened("two", names, "zero-shot-classification")
    result = pipeline("the wind is cold", candidate_labels="the sea")
    classes = opened("two", names)(("the wind is cold", "This example is the sea."))
    assert result.score == pytest.approx(classes.scores["entailment"])


def test_targets_of_a_mask(tmp_path):
    pipeline = serve.load(bundles.encoder_bundle(tmp_path / "mask", "fill-mask"))
    [every] = pipeline("the [MASK] sat", top_k=200).masks
    scores = {fill.token: fill.score for fill in every}
    [fills] = pipeline("the [MASK] sat", targets=["sea", "Red", "cat", "sea"], top_k=2).masks
    best = sorted(["sea", "red", "cat"], key=lambda token: -scores[token])[:2]
    assert [fill.token for fill in fills] == best
    assert [fill.score for fill in fills] == pytest.approx([scores[token] for token in best])
    with pytest.raises(InputError, match=r"'seaboat' is no token of the vocabulary.*\['sea', '##"):
        pipeline("the [MASK] sat", targets=["seaboat"])
    for targets in ("sea", [], [3]):
        with pytest.raises(InputError, match="targets"):
            pipeline("the [MASK] sat", targets=targets)
    cut = pipeline("the [MASK] sat " * 20)
    assert cut.truncated
    with pytest.raises(InputError, match="long='windows': expected one of 'cut', 'error'"):
        pipeline("the [MASK] sat", long="windows")
