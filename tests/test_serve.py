"""Sessions, the commands, and `serve` in a process of its own."""

import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import serve_bundles as bundles
from click.testing import CliRunner

import serve
from serve.commands.looking import inspect_, verify
from serve.commands.predict import predict
from serve.errors import BundleError, InputError, ProviderError
from serve.runtime.session import Session, SessionOptions, available_cpus

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("c") / "classifier"
    return bundles.encoder_bundle(folder, "text-classification", ["good", "bad"])


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    return bundles.decoder_bundle(tmp_path_factory.mktemp("w") / "writer")


def test_session_feeds_and_casts(classifier):
    session = Session(classifier / "model.onnx")
    ids = np.array([[2, 5, 3]], np.int32)
    feeds = {
        "input_ids": ids, "attention_mask": [[True, True, True]], "token_type_ids": ids * 0,
        "unknown": 3,
    }  # fmt: skip
    assert session.run(feeds)["logits"].shape == (1, 2)
    assert session.inputs["input_ids"].dtype == np.int64
    feeds.pop("token_type_ids")
    with pytest.raises(InputError, match="needs the input 'token_type_ids'"):
        session.run(feeds)
    with pytest.raises(InputError, match=r"'input_ids' has shape \[3\], expected"):
        session.run(feeds | {"token_type_ids": ids, "input_ids": ids[0]})
    with pytest.raises(InputError, match="'input_ids' is float64, expected int64"):
        session.run(feeds | {"token_type_ids": ids, "input_ids": ids + 0.5})
    with pytest.raises(InputError, match="failed on inputs"):
        session.run(feeds | {"token_type_ids": ids[:, :2]})
    with pytest.raises(InputError, match="no output 'x'"):
        session.run(feeds, ["x"])


def test_session_overrides_initializers(writer):
    session = Session(writer / "model.onnx")
    assert list(session.overridable) == ["logits_to_keep"]
    feeds = {"input_ids": [[5, 6, 7]], "attention_mask": [[1, 1, 1]]}
    for name, spec in session.inputs.items():
        if name not in feeds:
            feeds[name] = np.zeros((1, spec.shape[1], 0, spec.shape[3]), np.float32)
    last = session.run(feeds, ["logits"])["logits"]
    every = session.run(feeds | {"logits_to_keep": 0}, ["logits"])["logits"]
    assert last.shape[1] == 1
    assert every.shape[1] == 3
    assert np.allclose(last[:, 0], every[:, 2], atol=1e-5)


def test_a_missing_provider_is_never_silent(classifier):
    with pytest.raises(ProviderError, match="CPUExecutionProvider") as caught:
        serve.load(classifier, providers=["cuda"])
    assert "onnxruntime-gpu" in str(caught.value)
    with pytest.raises(ProviderError, match="nonsense"):
        Session(classifier / "model.onnx", SessionOptions(("nonsense", "cpu")))
    assert serve.load(classifier, providers=["CPUExecutionProvider"]).session.providers


def test_session_options(classifier, tmp_path):
    with pytest.raises(InputError, match="threads=0"):
        SessionOptions(threads=0)
    assert available_cpus() >= 1
    path = classifier / "model.onnx"
    ids = np.array([[2, 5, 3]])
    feeds = {"input_ids": ids, "attention_mask": ids > 0, "token_type_ids": ids * 0}
    expected = Session(path).run(feeds)["logits"]
    for options in (
        SessionOptions(("cpu",), threads=1, optimization="none", arena=False, spinning=False),
        SessionOptions((("cpu", {}),), optimization="basic", prepacking=False),
    ):
        assert np.allclose(Session(path, options).run(feeds)["logits"], expected, atol=1e-5)
    with pytest.raises(BundleError, match="no graph"):
        Session(tmp_path / "no.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    with pytest.raises(BundleError, match="cannot be loaded"):
        Session(tmp_path / "bad.onnx")


def run(command, *arguments, text=None):
    return CliRunner().invoke(command, [str(part) for part in arguments], input=text)


def test_predict_texts_and_lines(classifier):
    answered = run(predict, classifier, "the cat", "the sea")
    assert answered.exit_code == 0, answered.output
    assert len(answered.stdout.splitlines()) == 2
    lines = "".join(f"the cat {i}\n\n" for i in range(300))
    answered = run(predict, classifier, "--json", "--batch-size", 4, text=lines)
    rows = [json.loads(line) for line in answered.stdout.splitlines()]
    assert [row["input"] for row in rows] == lines.split("\n")[:-1]  # the empty ones as well
    assert set(rows[0]) == {"input", "label", "score", "scores", "labels", "truncated", "windows"}
    pair = run(predict, classifier, "--json", '{"text": "the cat", "pair": "the sea"}')
    assert json.loads(pair.stdout)["label"] == serve.load(classifier)(("the cat", "the sea")).label


def test_predict_generates_and_streams(writer):
    options = ["--max-new-tokens", 12, "--seed", 3, "--temperature", 1.2, "--stop", "zzzz"]
    answered = run(predict, writer, *options, "--json", "the cat", "the sea")
    rows = [json.loads(line) for line in answered.stdout.splitlines()]
    streamed = run(predict, writer, *options, "--stream", text="the cat\nthe sea\n")
    assert streamed.stdout == "".join(row["text"] + "\n" for row in rows)


def test_predict_wrong_use(classifier, writer, tmp_path):
    for arguments in (
        [classifier, "x", "--seed", 3],
        [classifier, "x", "--stream"],
        [writer, "x", "--stream", "--json"],
        [writer, "x", "--max-new-tokens", 0],
        [],
    ):
        assert run(predict, *arguments).exit_code == 2, arguments
    qa = bundles.encoder_bundle(tmp_path / "qa", "question-answering")
    assert run(predict, qa, "no context").exit_code == 2
    assert run(predict, qa, "who\tthe cat sat").exit_code == 0
    answered = run(predict, classifier, text="")
    assert (answered.exit_code, "nothing to answer" in answered.output) == (2, True)
    answered = run(predict, writer, text="the cat\n" + "the cat " * 99 + "\n")
    assert "line 2: a prompt of" in str(answered.exception)
    assert isinstance(run(predict, tmp_path, "x").exception, BundleError)
    answered = CliRunner().invoke(predict, [str(classifier)], input=b"the cat\n\xff\xfe\n")
    assert isinstance(answered.exception, InputError)


def test_inspect_and_verify(writer):
    answered = run(inspect_, writer, "--json")
    facts = json.loads(answered.stdout)
    assert facts["graphs"]["model"]["operators"]["GroupQueryAttention"] == 2
    assert facts["cache"]["bytes_per_position"] == 2 * 2 * 2 * 8 * 4
    shown = run(inspect_, writer).stdout
    for word in ("text-generation", "past_key_values.{i}.key", "GroupQueryAttention", "model.onnx"):
        assert word in shown
    answered = run(verify, writer)
    assert answered.exit_code == 0, answered.exception
    assert "no reference values" in answered.stdout
    assert json.loads(run(verify, writer, "--json").stdout)["has_reference"] is False


CLEAN = """
    import sys, time
    started = time.perf_counter()
    import serve
    assert time.perf_counter() - started < 0.3, time.perf_counter() - started
    pipeline = serve.load(sys.argv[1])
    print(pipeline("the cat", max_new_tokens=5).text)
    from serve.bundle.selfcheck import replay
    replay(sys.argv[1])
    heavy = {"tensorflow", "keras", "onnx", "torch", "zoo", "export", "click", "rich"}
    assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


def test_clean_process(writer):
    script = textwrap.dedent(CLEAN)
    done = subprocess.run(
        [sys.executable, "-c", script, str(writer)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


MAIN = "import sys; from serve.commands.predict import predict; predict(prog_name='predict')"


def test_a_reader_that_leaves(classifier):
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, str(classifier), "--batch-size", "1"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    for _ in range(8):
        process.stdin.write("the cat\n")
    process.stdin.flush()
    assert "\t" in process.stdout.readline()  # answers come before the input ends
    process.stdout.close()
    try:
        for _ in range(50):
            process.stdin.write("the cat\n" * 100)
            process.stdin.flush()
        process.stdin.close()
    except BrokenPipeError:
        pass
    process.stdin = None
    assert process.wait(20) == 0
    assert process.stderr.read() == ""


def test_interrupt(classifier):
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, str(classifier), "--batch-size", "1"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        # A shell's background job ignores SIGINT, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    process.stdin.write("the cat\n" * 4)
    process.stdin.flush()
    process.stdout.readline()
    time.sleep(0.1)
    process.send_signal(2)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors


def test_public_names():
    for name in serve.__all__:
        assert getattr(serve, name) is not None
    with pytest.raises(AttributeError):
        serve.nothing  # noqa: B018
