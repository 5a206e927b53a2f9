"""Batches of every task: shapes, order, packing, masking, alignment, answer spans."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from zoo.data import align_tags, answer_of, batches, pack, question_windows, read
from zoo.errors import ConfigError, DataError
from zoo.text import Tokenizer, join_words

tf = pytest.importorskip("tensorflow")
SHARED = Path(__file__).parents[2] / "shared" / "data"
LETTERS = "abcdefghij klmnopqrstuvwxyz,.?0123456789"


@pytest.fixture(scope="module")
def chars() -> Tokenizer:
    return Tokenizer.train("char", [LETTERS])


@pytest.fixture(scope="module")
def seq2seq() -> Tokenizer:
    return Tokenizer.train("char", [LETTERS], template="seq2seq")


@pytest.fixture(scope="module")
def decoder() -> Tokenizer:
    return Tokenizer.train("byte", [LETTERS], template="decoder")


def classified(count: int, longest: int = 40) -> list[dict]:
    """Texts of many lengths; the label says which example it is."""
    lengths = np.random.default_rng(0).integers(1, longest, count)
    return [{"text": "a" * int(n), "label": i} for i, n in enumerate(lengths)]


def arrays(dataset) -> list:
    return [tf.nest.map_structure(lambda t: t.numpy(), batch) for batch in dataset]


def order(dataset) -> list[int]:
    return np.concatenate([y for _, y in arrays(dataset)]).tolist()


def test_without_a_seed_the_order_is_kept(chars):
    examples = classified(50)
    dataset = batches(examples, chars, "text-classification", batch_size=8)
    assert order(dataset) == order(dataset) == list(range(50))
    assert (dataset.steps_per_epoch, int(dataset.cardinality()), dataset.num_rows) == (7, 7, 50)
    row = 0
    for x, _ in arrays(dataset):
        assert x["input_ids"].dtype == np.int32
        assert x["input_ids"].shape[1] in dataset.widths
        for ids, mask in zip(x["input_ids"], x["attention_mask"], strict=True):
            length = mask.sum()
            assert chars.decode(ids) == examples[row]["text"] and length == mask[:length].sum()
            assert length == len(examples[row]["text"]) + 2 and (ids[length:] == 0).all()
            row += 1


@pytest.mark.parametrize("drop", [False, True])
def test_shuffled_batches_have_few_shapes_and_lose_nothing(chars, drop):
    dataset = batches(
        classified(203), chars, "text-classification", batch_size=8, shuffle_seed=5,
        buckets=[16, 32, 48], drop_remainder=drop,
    )  # fmt: skip
    seen = order(dataset)
    assert len(set(seen)) == len(seen) == (200 if drop else 203)
    shapes = [x["input_ids"].shape for x, _ in arrays(dataset)]
    assert set(shapes) - {(3, 48)} == {(8, 16), (8, 32), (8, 48)}
    assert shapes.count((3, 48)) == (0 if drop else 1)
    assert len(shapes) == dataset.steps_per_epoch == int(dataset.cardinality())
    for x, _ in arrays(dataset):
        assert x["attention_mask"].sum(1).max() <= x["input_ids"].shape[1]


def test_epochs_differ_and_repeat_exactly(chars):
    def make(**options):
        return batches(
            classified(100), chars, "text-classification", batch_size=8, **options
        )  # fmt: skip

    dataset = make(shuffle_seed=1)
    first, second, third = order(dataset), order(dataset), order(dataset)
    assert len({tuple(first), tuple(second), tuple(third), tuple(range(100))}) == 4
    assert sorted(first) == sorted(second) == list(range(100))
    again = make(shuffle_seed=1)
    assert [order(again), order(again)] == [first, second]
    assert [order(again.for_epoch(n)) for n in (2, 0)] == [third, first]
    endless = make(shuffle_seed=1, repeat=True, start_epoch=1)
    assert int(endless.cardinality()) == tf.data.INFINITE_CARDINALITY
    assert order(endless.take(2 * endless.steps_per_epoch)) == second + third
    assert order(make(shuffle_seed=2)) != first
    kept = make(repeat=True)
    assert order(kept.take(2 * kept.steps_per_epoch)) == [*range(100), *range(100)]


def test_one_width_is_a_static_shape(chars):
    dataset = batches(
        classified(32), chars, "text-classification", batch_size=8, buckets=None, max_length=24
    )
    x, y = dataset.element_spec
    assert x["input_ids"].shape == x["attention_mask"].shape == (8, 24)
    assert y.shape == (8,)
    assert arrays(dataset)[0][0]["input_ids"].shape == (8, 24)


def test_labels(chars):
    def labels(values, names=None):
        examples = [{"text": "a", "label": value} for value in values]
        return order(batches(examples, chars, "text-classification", batch_size=9, labels=names))

    assert labels(["no", "yes"], ["yes", "no"]) == [1, 0]
    assert labels([1, 0, np.int64(1)], ["yes", "no"]) == [1, 0, 1]
    assert labels([4, 1], ["1", "2", "4"]) == [2, 0]  # names that are written as numbers
    assert labels([3, 0]) == [3, 0]
    with pytest.raises(DataError, match=r"label 'yess' .* \(nearest: 'yes'\)"):
        labels(["yess"], ["yes", "no"])
    with pytest.raises(DataError, match="give labels="):
        labels(["yes"])
    for wrong in (2, -1, 0.5):
        with pytest.raises(DataError, match="not among the labels"):
            labels([wrong], ["yes", "no"])
    with pytest.raises(ConfigError, match="twice"):
        labels(["a"], ["a", "a"])


def test_without_labels_only_x_comes(chars):
    for task in ("text-classification", "feature-extraction", "sentence-similarity"):
        dataset = batches([{"text": "ab"}], chars, task, batch_size=2)
        assert list(dataset.element_spec) == ["input_ids", "attention_mask"]


def test_pairs_have_type_ids(chars, seq2seq):
    examples = [{"text": "ab", "pair": "cde", "label": 0}]
    x, _ = arrays(batches(examples, chars, "text-classification", batch_size=1))[0]
    assert x["token_type_ids"][0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert chars.decode(x["input_ids"][0]) == "abcde"
    x, _ = arrays(
        batches(examples, chars, "text-classification", batch_size=1, token_type_ids=False)
    )[0]
    assert "token_type_ids" not in x
    x, _ = arrays(batches(examples, seq2seq, "text-classification", batch_size=1))[0]
    assert "token_type_ids" not in x


def test_packing_keeps_every_token_once_and_in_order():
    rows = [[5, 6, 7], [8], [9, 9, 9, 9, 1], [4, 4]]
    stream = [5, 6, 7, 1, 8, 1, 9, 9, 9, 9, 1, 4, 4, 1]
    for length in range(1, 16):
        inputs, labels = pack(rows, length, eos=1)
        assert inputs.shape == labels.shape == (-(-13 // length), length)
        real = labels.ravel() != -100
        assert inputs.ravel()[real].tolist() == stream[:-1]
        assert labels.ravel()[real].tolist() == stream[1:]
        assert real[:13].all() and not real[13:].any()  # only the tail is short
    assert pack(rows, 100, eos=None)[0][0, :5].tolist() == [5, 6, 7, 8, 9]
    with pytest.raises(DataError, match="fewer than two tokens"):
        pack([[5]], 4, None)


def test_text_generation(decoder):
    examples = [{"text": "abc"}, {"text": "defgh"}, {"text": "i"}]
    stream = "abc<|endoftext|>defgh<|endoftext|>i<|endoftext|>"
    dataset = batches(examples, decoder, "text-generation", batch_size=2, max_length=4)
    found = arrays(dataset)
    ids = np.concatenate([x["input_ids"] for x, _ in found])
    labels = np.concatenate([y for _, y in found])
    mask = np.concatenate([x["attention_mask"] for x, _ in found])
    assert ids.shape == labels.shape == (3, 4) and mask.sum() == 11
    text = decoder.decode([*ids[mask == 1], labels[mask == 1][-1]], skip_special_tokens=False)
    assert text == stream
    assert (labels[mask == 0] == -100).all() and (ids[mask == 0] == decoder.pad_token_id).all()
    single = batches(examples, decoder, "text-generation", batch_size=3, pack=False, max_length=4)
    x, y = arrays(single)[0]
    assert [decoder.decode(row) for row in x["input_ids"]] == ["abc", "defg", "i"]
    assert [decoder.decode(row) for row in y] == ["bc", "efgh", ""]
    assert y[0].tolist()[:4] == [*decoder.encode("bc").ids, decoder.eos_token_id, -100]


def test_text2text(seq2seq):
    examples = [{"source": "abc", "target": "z"}, {"source": "defg", "target": "yxw"}]
    dataset = batches(examples, seq2seq, "text2text-generation", batch_size=2)
    x, y = arrays(dataset)[0]
    assert list(x) == ["input_ids", "attention_mask", "decoder_input_ids"]
    end, start = seq2seq.eos_token_id, seq2seq.pad_token_id
    for example, labels, inputs in zip(examples, y, x["decoder_input_ids"], strict=True):
        target = seq2seq.encode_raw([example["target"]], add_special_tokens=False)[0].ids
        used = len(target) + 1
        assert labels[:used].tolist() == [*target, end] and (labels[used:] == -100).all()
        assert inputs[:used].tolist() == [start, *target] and (inputs[used:] == 0).all()
    dataset = batches(
        examples, seq2seq, "text2text-generation", batch_size=2, max_length=4,
        max_target_length=3, decoder_start_token_id=3,
    )  # fmt: skip
    x, y = arrays(dataset)[0]
    assert x["input_ids"].shape == (2, 4) and y.shape == (2, 3)
    assert (x["decoder_input_ids"][:, 0] == 3).all() and y[1].tolist()[-1] == end


def test_targets_of_shuffled_batches_fit(seq2seq):
    random = np.random.default_rng(0)
    examples = [
        {"source": "a" * int(n), "target": "b" * int(m)}
        for n, m in random.integers(1, 60, (300, 2))
    ]
    dataset = batches(examples, seq2seq, "text2text-generation", batch_size=8, shuffle_seed=0)
    found = [
        (int(mask.sum()) - 1, int((labels != -100).sum()) - 1)
        for x, y in arrays(dataset)
        for mask, labels in zip(x["attention_mask"], y, strict=True)
    ]
    assert sorted(found) == sorted((len(e["source"]), len(e["target"])) for e in examples)
    shapes = {(x["input_ids"].shape, y.shape) for x, y in arrays(dataset)}
    assert len(shapes) <= len(dataset.widths) + 1


def test_fill_mask(chars):
    examples = [{"text": LETTERS * 3}] * 64
    dataset = batches(examples, chars, "fill-mask", batch_size=16, shuffle_seed=3)
    x, y = arrays(dataset.for_epoch(0))[0]
    whole = chars.encode(LETTERS * 3).ids
    mask = chars.mask_token_id
    chosen = y != -100
    original = np.where(chosen, y, x["input_ids"])[:, : len(whole)]
    assert (original == whole).all()
    assert not chosen[:, 0].any() and not chosen[:, len(whole) - 1 :].any()
    assert 0.12 < chosen[:, 1 : len(whole) - 1].mean() < 0.18
    shown = x["input_ids"][chosen]
    assert 0.7 < (shown == mask).mean() < 0.9
    assert 0.05 < (shown == y[chosen]).mean() < 0.2
    assert not set(shown.tolist()) & (set(chars.special_ids) - {mask})
    again = arrays(dataset.for_epoch(0))[0]
    assert (again[1] == y).all()
    assert (arrays(dataset.for_epoch(1))[0][1] != y).any()
    short = arrays(batches([{"text": "a"}], chars, "fill-mask", batch_size=1))[0]
    assert (short[1] != -100).sum() == 1  # never a row without anything to predict


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram", "char", "byte"])
def test_tags_go_to_the_first_piece(kind):
    examples = [
        {"tokens": ["Jo", "Ng", "visits", "North-Rhine"], "tags": ["B", "I", "O", "L"]},
        {"tokens": ["我", "在", "北", "京", "."], "tags": ["O", "O", "B", "I", "O"]},
    ]
    names = ["O", "B", "I", "L"]
    corpus = [join_words(example["tokens"])[0] for example in examples]
    size = {"wordpiece": 60, "bpe": 265, "unigram": 320}.get(kind)
    tokenizer = Tokenizer.train(kind, corpus, size)
    dataset = batches(examples, tokenizer, "token-classification", batch_size=2, labels=names)
    x, y = arrays(dataset)[0]
    for row, (example, text) in enumerate(zip(examples, corpus, strict=True)):
        assert [names[i] for i in y[row] if i >= 0] == example["tags"]
        _, spans = join_words(example["tokens"])
        encoding = tokenizer.encode(text)
        places = [encoding.offsets[i] for i in np.flatnonzero(y[row] >= 0)]
        for (start, end), span in zip(places, spans, strict=True):
            assert start + (text[start] == " ") == span[0] and end <= span[1]
    assert (y[x["attention_mask"] == 0] == -100).all()


def test_tags_with_odd_words_and_truncation(chars):
    assert align_tags([(0, 0), (0, 2), (3, 5), (0, 0)], [(0, 2), (2, 3), (3, 5)], [7, 8, 9]) == [
        -100, 7, 9, -100,
    ]  # fmt: skip
    # A piece over two words takes the first word's tag.
    assert align_tags([(0, 2), (2, 3)], [(0, 1), (1, 2), (2, 3)], [1, 2, 3]) == [1, 3]
    example = {"tokens": ["abc", "def"], "tags": [1, 2]}
    dataset = batches(
        [example], chars, "token-classification", batch_size=1, max_length=5, labels=list("xyz")
    )
    assert arrays(dataset)[0][1].tolist() == [[-100, 1, -100, -100, -100]]
    with pytest.raises(DataError, match="example 0: 2 tokens but 1 tags"):
        batches(
            [example | {"tags": [1]}],
            chars,
            "token-classification",
            batch_size=1,
            labels=["x", "y"],
        )


def test_answer_spans_decode_to_the_answer(chars):
    context = "the cat sat on the mat, and the dog ran to the old mill by the river."
    answers = ["cat", "the mat", "the old mill by the river.", "river"]
    examples = [
        {
            "question": "who was it?",
            "context": context,
            "answers": {"text": [a], "answer_start": [context.index(a)]},
        }
        for a in answers
    ]
    examples.append({"question": "why?", "context": context, "answers": []})
    windows = question_windows(examples, chars, max_length=48, stride=12)
    for number, example in enumerate(examples):
        mine = [w for w in windows if w.example == number]
        assert len(mine) > 1 and max(len(w.ids) for w in mine) == 48
        found = [w for w in mine if w.start]
        for window in found:
            start, end = window.offsets[window.start][0], window.offsets[window.end][1]
            assert context[start:end] == example["answers"]["text"][0]
        assert all(w.start == w.end == 0 for w in mine if w not in found)
        assert bool(found) == (number not in (2, 4))  # one is longer than what windows share
        covered = {c for w in mine for o in w.offsets if o for c in range(*o)}
        assert covered == set(range(len(context)))
    dataset = batches(examples, chars, "question-answering", batch_size=4, max_length=48, stride=12)
    (x, y), *_ = arrays(dataset)
    assert y["start_logits"].tolist() == [w.start for w in windows[:4]]
    assert y["end_logits"].tolist() == [w.end for w in windows[:4]]
    assert list(x) == ["input_ids", "attention_mask", "token_type_ids"]
    assert dataset.num_rows == len(windows)


def test_answers():
    context = "a b a b"
    assert answer_of({"context": context, "answers": [{"text": "b", "answer_start": 6}]}) == (6, 7)
    assert answer_of({"context": context, "answers": [{"text": "b", "answer_start": 5}]}) == (6, 7)
    assert answer_of({"context": context, "answers": {"text": "b", "answer_start": 2}}) == (2, 3)
    assert answer_of({"context": context, "answers": {"text": [], "answer_start": []}}) is None
    with pytest.raises(DataError, match="question 'q': the answer 'c' is not in its context"):
        answer_of({"id": "q", "context": context, "answers": [{"text": "c", "answer_start": 0}]})


def test_long_questions_are_cut(chars):
    example = {"question": "what " * 30, "context": "it is here", "answers": []}
    (first, *_) = question_windows([example], chars, max_length=32, stride=2)
    assert chars.decode(first.ids).startswith("what what what w")
    assert len(first.ids) <= 32


@pytest.mark.parametrize(
    ("examples", "task", "options", "kind", "message"),
    [
        ([], "fill-mask", {}, DataError, "no examples"),
        ([{"text": "a"}], "text-clasification", {}, ConfigError, "'text-classification'"),
        ([{"txt": "a", "label": 0}], "text-classification", {}, DataError, "example 0: no 'text'"),
        (
            [{"text": "a", "label": 0}, {"text": "a"}],
            "text-classification",
            {},
            DataError,
            "e 1: no",
        ),
        ([{"source": "a"}], "text2text-generation", {}, DataError, "no 'target'; it has source"),
        ([{"question": "a"}], "question-answering", {}, DataError, "no 'context'"),
        ([{"text": "a"}], "text-classification", {"batch_size": 0}, ConfigError, "batch_size=0"),
        (
            [{"text": "a"}],
            "fill-mask",
            {"drop_remainder": True},
            DataError,
            "do not fill one batch",
        ),
        ([{"text": "a"}], "fill-mask", {"buckets": "all"}, ConfigError, "buckets='all'"),
        ([{"text": "a"}], "fill-mask", {"buckets": [0]}, ConfigError, "lengths of 1 or more"),
        ([{"text": 5}], "fill-mask", {}, DataError, "item 0 is 5"),
    ],
)
def test_errors(chars, examples, task, options, kind, message):
    with pytest.raises(kind) as caught:
        batches(examples, chars, task, **{"batch_size": 2, "max_length": 32} | options)
    assert message in str(caught.value)


def test_needed_settings(chars, decoder):
    with pytest.raises(ConfigError, match="give max_length"):
        batches([{"text": "ab"}], decoder, "text-generation", batch_size=1)
    with pytest.raises(ConfigError, match="needs a mask token"):
        batches([{"text": "ab"}], decoder, "fill-mask", batch_size=1)
    with pytest.raises(DataError, match="example 1: its text gives no tokens"):
        batches([{"text": "a"}, {"text": ""}], decoder, "text-classification", batch_size=1)


def test_batches_are_dealt_to_replicas(chars):
    dataset = batches(
        classified(50), chars, "text-classification", batch_size=8, shuffle_seed=0,
        drop_remainder=True,
    )  # fmt: skip
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    seen = []
    for x, y in strategy.experimental_distribute_dataset(dataset):
        assert strategy.experimental_local_results(x["input_ids"])[0].shape[0] == 8
        seen += strategy.experimental_local_results(y)[0].numpy().tolist()
    assert len(set(seen)) == len(seen) == 48


def test_real_answers():
    path, vocabulary = SHARED / "qa/xquad/xquad.zh.json", SHARED / "tokenizers/bert-base-chinese"
    if not (path.exists() and vocabulary.exists()):
        pytest.skip("no XQuAD here")
    tokenizer = Tokenizer.load(vocabulary)
    examples = list(itertools.islice(read(path), 200))
    found = exact = 0
    for window in question_windows(examples, tokenizer, 384, 128):
        if window.start:
            context, answer = (examples[window.example][k] for k in ("context", "answers"))
            start, end = window.offsets[window.start][0], window.offsets[window.end][1]
            assert answer[0]["text"] in context[start:end]
            exact += context[start:end] == answer[0]["text"]
            found += 1
    assert found >= 200 and exact / found > 0.95


def test_real_tags():
    path, vocabulary = SHARED / "ner/resume_zh/dev.char.bmes", SHARED / "tokenizers"
    if not (path.exists() and vocabulary.exists()):
        pytest.skip("no Resume NER here")
    examples = list(read(path))
    names = sorted({tag for example in examples for tag in example["tags"]})
    tokenizer = Tokenizer.load(vocabulary / "bert-base-chinese")
    dataset = batches(examples, tokenizer, "token-classification", batch_size=64, labels=names)
    tagged = sum(int((y >= 0).sum()) for _, y in arrays(dataset))
    assert tagged > 0.97 * sum(len(example["tags"]) for example in examples)
