"""`zoo predict`: settings of tasks as options, where errors point, and progress."""

import io
import json

import pytest
import serve_bundles as bundles
from click.testing import CliRunner

import serve
from serve.commands.predict import predict
from serve.commands.progress import Progress
from serve.commands.task_options import TASK_OPTIONS, in_options, option_names
from serve.errors import InputError
from serve.pipelines import PIPELINES, pipeline_class
from serve.pipelines.encoder import EncoderPipeline

BIO = ["O", "B-X", "I-X"]
INFERENCE = ["contradiction", "neutral", "entailment"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("b")
    labels = {"text-classification": INFERENCE, "token-classification": BIO}
    made = {}

    def get(task):
        if task not in made:
            made[task] = bundles.encoder_bundle(folder / task, task, labels.get(task))
        return made[task]

    return get


def run(*arguments, text=None):
    return CliRunner().invoke(predict, [str(part) for part in arguments], input=text)


def answers(*arguments, text=None):
    done = run(*arguments, "--json", text=text)
    assert done.exit_code == 0, (done.output, done.exception)
    return [json.loads(line) for line in done.stdout.splitlines()]


CASES = [
    ("text-classification", None, "a red boat", ["--multi-label", "--threshold", 0.1],
     {"multi_label": True, "threshold": 0.1}),
    ("text-classification", None, "a red boat " * 30, ["--long", "cut", "--top-k", 2],
     {"long": "cut", "top_k": 2}),
    ("text-classification", None, "a red boat " * 30, ["--stride", 3], {"stride": 3}),
    ("text-classification", "zero-shot-classification", "a red boat",
     ["--labels", "sea, sun", "--hypothesis-template", "{} it is"],
     {"candidate_labels": ["sea", "sun"], "hypothesis_template": "{} it is"}),
    ("text-classification", "zero-shot-classification", "a red boat",
     ["--labels", "sea, sun", "--labels", "wind", "--multi-label"],
     {"candidate_labels": ["sea", "sun", "wind"], "multi_label": True}),
    ("token-classification", None, "the seaboat sails", ["--aggregation", "average"],
     {"aggregation": "average"}),
    ("fill-mask", None, "the [MASK] sat", ["--target", "sea", "--target", "cat"],
     {"targets": ["sea", "cat"]}),
    ("feature-extraction", None, "a red boat", ["--pooling", "mean", "--normalize"],
     {"pooling": "mean", "normalize": True}),
]  # fmt: skip


@pytest.mark.parametrize(("made_for", "task", "text", "options", "settings"), CASES)
def test_options_are_settings(bundle, made_for, task, text, options, settings):
    chosen = [] if task is None else ["--task", task]
    pipeline = serve.load(bundle(made_for), task)
    expected = json.loads(json.dumps(pipeline(text, **settings).to_dict()))
    [found] = answers(bundle(made_for), text, *chosen, *options)
    assert found.pop("input") == text
    assert found == expected
    assert expected != json.loads(json.dumps(pipeline(text, **defaults(task)).to_dict()))


def defaults(task):
    return {"candidate_labels": "boat"} if task else {}


def test_options_and_settings_are_the_same(bundle):
    manifest = serve.Manifest.load(bundle("fill-mask"))
    known, of_encoders = set(), set()
    for task, row in PIPELINES.items():
        kind = pipeline_class(manifest.model_copy(update={"task": row.bundles[0]}), task)
        known |= set(kind.setting_names())
        if issubclass(kind, EncoderPipeline):
            of_encoders |= set(kind.setting_names())
    options = {param.name for param in predict.params}
    assert set(TASK_OPTIONS) <= known
    assert of_encoders <= options


def test_dicts_as_json(bundle):
    words = ["the", "seaboat", "sails"]
    [found] = answers(bundle("token-classification"), json.dumps({"tokens": words}))
    assert [token["token"] for token in found["tokens"]] == words
    given = json.dumps({"question": "who", "context": "the cat sat"})
    [found] = answers(bundle("question-answering"), given)
    assert found["text"] in "the cat sat"
    ranked = json.dumps({"query": "a boat", "documents": ["the sea", "bread"]})
    [found] = answers(bundle("text-classification"), ranked, "--task", "reranking")
    assert len(found["documents"]) == 2
    [found] = answers(bundle("text-classification"), '{"text": "a boat"}')  # without a pair
    assert found["label"] in INFERENCE
    [found] = answers(bundle("feature-extraction"), '{"other": 1}')  # of a task without objects
    assert found["input"] == '{"other": 1}'


@pytest.mark.parametrize(
    ("made_for", "message"),
    [
        ("text-classification", "has the keys ['text', 'pair'], not ['other']"),
        ("token-classification", "expected a text or {'tokens': [words]}, got {'other': 1}"),
        ("question-answering", "has the keys ['question', 'context'], not ['other']"),
    ],
)
def test_objects_of_other_keys_are_refused(bundle, made_for, message):
    done = run(bundle(made_for), text='{"other": 1}\n')
    assert done.exit_code == 1
    assert str(done.exception).startswith("line 1: ")
    assert message in str(done.exception)


def test_every_line_has_an_answer(bundle):
    classifier = bundle("text-classification")
    given = b"\xef\xbb\xbfa red boat\r\n\r\n  \nthe sea"
    found = answers(classifier, text=given)
    assert [line["input"] for line in found] == ["a red boat", "", "  ", "the sea"]
    assert found[1]["scores"] == answers(classifier, "")[0]["scores"]
    masks = run(bundle("fill-mask"), text="the [MASK]\n\nthe [MASK]\n")
    assert str(masks.exception).startswith("line 2: the text has no [MASK]")
    assert len(masks.stdout.splitlines()) == 1


def test_a_line_that_is_not_utf_8_is_named(bundle):
    done = run(bundle("text-classification"), text=b"a boat\nthe sea\nse\xe9\na boat\n")
    assert done.exit_code == 1
    assert str(done.exception).startswith("line 3: this is not UTF-8: ")
    assert "at its byte 3" in str(done.exception)
    assert len(done.stdout.splitlines()) == 2


def test_top_k_is_shown(bundle):
    shown = run(bundle("text-classification"), "a boat", "--top-k", 2).stdout.split("\t")
    assert len(shown) == 4 and set(shown[::2]) < set(INFERENCE)
    shown = run(bundle("question-answering"), "who\tthe cat sat", "--top-k", 3).stdout.split("\t")
    assert len(shown) == 6 and all(part in "the cat sat" for part in shown[::2])


def test_several_answers_are_all_shown(tmp_path):
    writer = bundles.decoder_bundle(tmp_path / "writer")
    options = ("a red boat", "--max-new-tokens", 3, "--num-return-sequences", 3)
    done = run(writer, *options, "--num-beams", 4)
    assert done.exit_code == 0, done.output
    [found] = answers(writer, *options, "--num-beams", 4)
    expected = "\n".join(f"{one['text']}\t{one['score']:.4f}" for one in found["sequences"])
    assert len(found["sequences"]) == 3
    assert done.stdout == expected + "\n"
    done = run(writer, *options, "--seed", 3, "--do-sample")
    [found] = answers(writer, *options, "--seed", 3, "--do-sample")
    assert done.stdout == "\n".join(one["text"] for one in found["sequences"]) + "\n"
    done = run(writer, "a", "--stream", "--num-beams", 2)
    assert (done.exit_code, "--stream shows one answer" in done.output) == (2, True)
    done = run(writer, "a", "--logprobs", 2)
    assert (done.exit_code, "--logprobs is shown with --json" in done.output) == (2, True)


def test_wrong_use(bundle):
    classifier = bundle("text-classification")
    done = run(classifier, "x", "--aggregation", "first")
    assert done.exit_code == 2
    assert "--aggregation means nothing to the task text-classification" in done.output
    assert "--threshold" in done.output.split("which takes")[1]
    assert "--draft means nothing" in run(classifier, "x", "--draft", classifier).output
    for arguments in ([classifier, "x", "--draft", "nowhere"], ["nowhere", "x"]):
        done = run(*arguments)
        assert done.exit_code == 2
        assert "'nowhere' does not exist" in done.output
    done = run(classifier, "x", "--task", "fill-mask")
    assert done.exit_code == 2
    assert "fill-mask needs a bundle of fill-mask: the bundle" in done.output
    assert "--task painting: the bundle" in run(classifier, "x", "--task", "painting").output
    done = run(classifier, text="")
    assert (done.exit_code, "nothing to answer" in done.output) == (2, True)
    assert run(bundle("question-answering"), "no context").exit_code == 2
    assert run(classifier, "no documents", "--task", "reranking").exit_code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--long", "hide"], "--long hide: expected one of 'windows', 'cut', 'error'"),
        (["--threshold", 2], "--threshold 2.0: expected a number from 0 to 1"),
        (["--threshold", 0.5], "means nothing where one label holds: pass --multi-label"),
        (["--task", "zero-shot-classification"], "--labels is empty"),
        (["--task", "zero-shot-classification", "--labels", ","], "--labels is empty"),
    ],
)
def test_wrong_options_are_wrong_use(bundle, options, message):
    done = run(bundle("text-classification"), "a red boat " * 30, *options)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stride", 30], "--stride 30: windows of 32 tokens have 30"),
        (["--long", "error"], "pass --long windows or --long cut"),
    ],
)
def test_errors_speak_of_options(bundle, options, message):
    done = run(bundle("text-classification"), "a red boat " * 30, *options)
    assert isinstance(done.exception, InputError)
    assert message in str(done.exception)


def test_words_of_an_error_are_left_alone():
    names = option_names(predict)
    assert (
        in_options("a long text; stride=3: too long", names) == "a long text; --stride 3: too long"
    )
    assert in_options("normalize=False is off", names) == "--no-normalize is off"


def test_errors_say_which_line(bundle):
    lines = "".join(f"{'' if at % 3 else ' '}the sea{chr(10) * (1 + at % 2)}" for at in range(99))
    lines += "\nthe sea " + "the sea " * 40 + "\n"
    number = lines.count("\n")
    done = run(bundle("text-classification"), "--long", "error", "--batch-size", 4, text=lines)
    assert str(done.exception).startswith(f"line {number}: ")
    assert len(done.stdout.splitlines()) == number - 1
    done = run(bundle("text-classification"), "--long", "error", "a", "the sea " * 40)
    assert str(done.exception).startswith("TEXT 2: ")
    done = run(bundle("question-answering"), text="who\tthe cat\nno context\n")
    assert str(done.exception).startswith("line 2: expected a question and a context")


def test_a_cut_is_said_once(bundle):
    long = "the sea " * 40
    done = run(bundle("text-classification"), "--long", "cut", "a", long, long)
    assert done.stderr == "note: 2 of 3 texts were longer than the model reads, and cut\n"
    done = run(bundle("text-classification"), "--long", "cut", long)
    assert done.stderr == "note: the text was longer than the model reads, and cut\n"
    assert run(bundle("text-classification"), long, "a").stderr == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_progress_in_a_log_is_a_line_now_and_then():
    clock, log = Clock(), io.StringIO()
    with Progress("texts", 400, stream=log, clock=clock) as progress:
        for _ in range(50):
            clock.now += 0.5
            progress.advance(2, amount=4)
    assert log.getvalue().splitlines() == ["40 texts, 4.0/s, 20%", "80 texts, 4.0/s, 40%"]
    clock, log = Clock(), io.StringIO()
    with Progress("texts", stream=log, clock=clock) as progress:
        clock.now += 1000
        progress.advance(2000)
        clock.now += 9
        progress.advance(2000)
    assert log.getvalue() == "2,000 texts, 2.0/s\n"


def test_progress_on_a_terminal_is_a_bar_that_leaves():
    clock, screen = Clock(), Terminal()
    with Progress("texts", 40, stream=screen, clock=clock) as progress:
        progress.advance(10)
        assert screen.getvalue() == ""  # short work needs none
        clock.now += 2
        progress.advance(10)
    assert "20 texts, 10.0/s" in screen.getvalue()
    assert "50%" in screen.getvalue()
    clock, screen = Clock(), Terminal()
    with Progress("texts", 40, quiet=True, stream=screen, clock=clock) as progress:
        clock.now += 100
        progress.advance(10)
    assert screen.getvalue() == ""
