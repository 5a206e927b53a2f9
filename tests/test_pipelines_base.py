"""One input, a list, an iterator: what all pipelines share."""

import itertools
from dataclasses import dataclass

import pytest
import serve_bundles as bundles

import serve
from serve.errors import BundleError, InputError
from serve.pipelines.base import Pipeline, check_choice, check_count, for_each, read_settings


@dataclass(frozen=True)
class Settings:
    """Of the pipeline below."""

    plus: int = 0


class Doubler(Pipeline):
    """Doubles numbers, and remembers what it was asked for at once."""

    task = "doubling"

    def __init__(self, batch_size=2):
        self.batch_size = batch_size
        self.runs = []

    def settings(self, **given):
        return read_settings(Settings, given, self.task)

    def _answer(self, items, settings):
        self.runs.append(list(items))
        return for_each(items, lambda item: self._double(item) + settings.plus)

    @staticmethod
    def _double(item):
        if not isinstance(item, int):
            raise InputError(f"expected a number, got {item!r}")
        return 2 * item


def test_one_a_list_and_an_iterator():
    pipeline = Doubler()
    assert pipeline(3) == 6
    assert pipeline([3, 4], plus=1) == [7, 9]
    assert pipeline([]) == []
    assert list(pipeline(iter([]))) == []
    assert list(pipeline((number for number in range(20)), plus=1)) == list(range(1, 41, 2))
    assert pipeline.runs[2:] == [list(range(8)), list(range(8, 16)), list(range(16, 20))]


def test_an_iterator_is_read_a_few_batches_ahead():
    pipeline = Doubler()
    pipeline.read_ahead = 5
    read = itertools.count()
    answers = pipeline(read)  # without an end
    assert not pipeline.runs  # nothing is read before an answer is asked for
    for number in range(1, 300):
        next(answers)
        assert read.__reduce__()[1][0] <= number + 4
    assert all(len(run) == 5 for run in pipeline.runs)


def test_errors_say_which_input():
    pipeline = Doubler()
    with pytest.raises(InputError, match=r"^input 1: expected a number, got 'x'"):
        pipeline([1, "x"])
    with pytest.raises(InputError, match=r"^expected a number, got 'x'") as caught:
        pipeline("x")
    assert caught.value.row is None
    answers = pipeline(iter([*range(17), "x"]))
    assert list(itertools.islice(answers, 17)) == list(range(0, 34, 2))  # the one before as well
    with pytest.raises(InputError, match=r"^input 17: expected") as caught:
        next(answers)
    assert caught.value.row == 17


def test_what_an_iterator_gave_before_its_own_error_is_answered():
    def inputs():
        yield from range(5)
        raise OSError("unplugged")

    answers = Doubler()(inputs())
    assert list(itertools.islice(answers, 5)) == [0, 2, 4, 6, 8]
    with pytest.raises(OSError, match="unplugged"):
        next(answers)


@pytest.mark.parametrize("value", [0, -1, 2.5, "3", True, None])
def test_sizes_out_of_range_are_refused(classifier, value):
    with pytest.raises(InputError, match=r"^batch_size=.*whole number from 1"):
        serve.load(classifier, batch_size=value)
    with pytest.raises(InputError, match=r"^batch_size="):
        Doubler(batch_size=value)(iter([1, 2]))
    if value is None:  # elsewhere this is a default
        return
    with pytest.raises(InputError, match=r"^batch_tokens=.*whole number from 1"):
        serve.load(classifier, batch_tokens=value)
    with pytest.raises(InputError, match=r"^threads=.*whole number from 1"):
        serve.load(classifier, threads=value)
    pipeline = Doubler()
    pipeline.read_ahead = value
    with pytest.raises(InputError, match=r"^read_ahead=.*whole number from 1"):
        pipeline(iter([1, 2]))


def test_settings_are_checked_before_anything_is_read():
    def inputs():
        raise AssertionError("read")
        yield 1

    with pytest.raises(InputError, match="doubling has no setting 'minus': it knows plus"):
        Doubler()(inputs(), minus=1)
    for value in (0, -1, 1.5, "3", True):
        with pytest.raises(InputError, match=r"^k=.*whole number from 1"):
            check_count("k", value)
    with pytest.raises(InputError, match="k='c': expected one of 'a', 'b'"):
        check_choice("k", "c", ("a", "b"))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("c") / "c"
    return bundles.encoder_bundle(folder, "text-classification", ["good", "bad"])


def test_texts_of_an_iterator_share_runs_and_keep_their_order(classifier):
    pipeline = serve.load(classifier, batch_size=3)
    texts = ["the sea " * (1 + 5 * (number % 2)) + str(number) for number in range(40)]
    expected = [pipeline(text).score for text in texts]
    run, shapes = pipeline.session.run, []

    def watched(feeds, outputs):
        shapes.append(feeds["input_ids"].shape)
        return run(feeds, outputs)

    pipeline.session.run = watched
    found = [result.score for result in pipeline(iter(texts))]
    assert found == pytest.approx(expected, abs=1e-5)
    assert max(rows for rows, _ in shapes) == 3
    assert len(shapes) == 4 * 3 + 2  # long and short ones are not mixed, but for one run in each
    with pytest.raises(InputError, match=r"^input 13: expected a text, got int"):
        list(pipeline(iter([*texts[:13], 3])))
    with pytest.raises(InputError, match=r"^input 1: the tokenizer cannot encode"):
        pipeline(["fine", "half \ud83d"])


@pytest.mark.parametrize("task", ["text-classification", "token-classification"])
def test_large_lists_are_encoded_in_parts(task, tmp_path):
    pipeline = serve.load(bundles.encoder_bundle(tmp_path / "b", task, ["good", "bad"]))
    encode, sizes = pipeline.tokenizer.encode, []

    def watched(texts, *more, **named):
        sizes.append(len(texts))
        return encode(texts, *more, **named)

    pipeline.tokenizer.encode = watched
    texts = [f"the {'sea' * (1 + number % 3)} {number % 7}" for number in range(600)]
    found = pipeline(texts)
    assert max(sizes) == 256 and sum(sizes) == 600  # an interrupt is heard between them
    assert str(found[599]) == str(pipeline(texts[599]))
    texts[555] = "half \ud83d"
    with pytest.raises(InputError, match=r"^input 555: the tokenizer cannot encode"):
        pipeline(texts)


def test_tasks_and_choices_of_load(classifier):
    assert serve.load(classifier, task="text-classification", batch_size=7).batch_size == 7
    with pytest.raises(InputError, match=r"fill-mask needs a bundle of fill-mask: .*"
                       "made for text-classification and can do .*zero-shot"):  # fmt: skip
        serve.load(classifier, task="fill-mask")
    with pytest.raises(InputError, match="task='painting': the bundle"):
        serve.load(classifier, task="painting")
    with pytest.raises(
        InputError, match="no choice 'batchsize': it knows batch_size, batch_tokens"
    ):
        serve.load(classifier, batchsize=3)
    with pytest.raises(BundleError, match=r"'contradiction' .*has \['good', 'bad'\]"):
        serve.load(classifier, task="zero-shot-classification")
