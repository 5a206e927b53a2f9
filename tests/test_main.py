"""How `zoo` ends: exit codes, a reader that went away, packages that are not there."""

import subprocess
import sys

import pytest
import serve_bundles as bundles

from zoo.__main__ import _describe, main


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("main") / "c"
    return str(bundles.encoder_bundle(folder, "text-classification", ["a", "b", "c"]))


def end_of(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code, " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x", "--provider", "gpu"), "execution provider 'gpu' is not available"),
        (("x", "--long", "wat"), "--long wat: expected one of"),
        (("x", "--multi-label", "--threshold", "7"), "--threshold 7.0: expected a number"),
        (("x", "--task", "question-answering"), "question-answering needs a bundle of"),
    ],
)
def test_wrong_use_ends_with_2(classifier, capsys, arguments, message):
    code, said = end_of(capsys, "predict", classifier, *arguments)
    assert code == 2
    assert message in said


def test_chat_needs_a_model_that_writes(classifier, capsys):
    code, said = end_of(capsys, "chat", classifier)
    assert (code, "chat needs a bundle of text-generation: the bundle" in said) == (2, True)


def test_a_missing_bundle_is_wrong_use_and_a_broken_one_is_not(tmp_path, capsys):
    for command in ("predict", "chat", "verify", "inspect"):
        assert end_of(capsys, command, str(tmp_path / "none"))[0] == 2
    code, said = end_of(capsys, "predict", str(tmp_path), "x")
    assert code == 1
    assert "it has no manifest.json" in said


def test_work_that_fails_ends_with_1_and_work_that_does_not_with_0(classifier, capsys):
    assert end_of(capsys, "predict", classifier, "x")[0] == 0
    assert end_of(capsys, "predict", classifier, "x " * 99, "--long", "error")[0] == 1


def test_a_reader_that_went_away_is_no_failure():
    # Nobody reads from the pipe by the time that something is written.
    code = "import os; r, w = os.pipe(); os.close(r); os.dup2(w, 1)\n"
    code += "from zoo.__main__ import main; main(['list'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_packages_that_are_not_there_are_named():
    said = _describe(ModuleNotFoundError("No module named 'tokenizers'", name="tokenizers"))
    assert said.startswith("this needs tokenizers: pip install")
