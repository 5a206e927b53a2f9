"""The harness of `make interop`: what it calls a failure, and that its cases are there."""

import json
import sys
import types
from pathlib import Path

import pytest
from interop import check, registry
from interop.registry import Case, Found

CASE = Case("one", "bert/masked-lm", "fill-mask")


@pytest.fixture
def answers(monkeypatch, tmp_path) -> dict[str, Found]:
    """A client whose answers are what the test puts here."""
    found: dict[str, Found] = {}
    module = types.ModuleType("client_of_the_test")
    module.cases = lambda: [CASE]
    module.check = lambda case, checkpoint, out: found["answer"]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(registry.CLIENTS, "test", module.__name__)
    (tmp_path / "test" / "one" / "export").mkdir(parents=True)
    return found


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Found(difference=1e-6, tolerance=1e-5), None),
        (Found(tokens=(9, 9)), None),
        (Found(difference=1e-4, tolerance=1e-5), "differs by 0.0001, allowed 1e-05"),
        (Found(difference=float("nan"), tolerance=1e-5), "differs by nan"),
        (Found(tokens=(9, 8)), "8 of 9 tokens are equal"),
        (Found(tokens=(0, 0)), "0 of 0 tokens are equal"),
        (Found(), "nothing was compared"),
    ],
)
def test_what_is_a_failure(answers, tmp_path, answer, problem):
    answers["answer"] = answer
    found = check.judged("test", CASE, tmp_path).problems
    assert not found if problem is None else found[0].startswith(problem)


def test_what_was_not_exported_or_raises_is_a_failure(answers, tmp_path):
    (raised,) = check.judged("test", CASE, tmp_path).problems  # the client has no answer
    assert raised == "KeyError: 'answer'"
    (tmp_path / "test" / "one" / "export").rmdir()
    assert "run tests.interop.export" in check.judged("test", CASE, tmp_path).problems[0]
    (tmp_path / "test" / "one" / check.FAILED).write_text("ExportError: no\n")
    assert check.judged("test", CASE, tmp_path).problems == ["export: ExportError: no"]


def test_the_exit_code_says_whether_all_is_well(answers, tmp_path, monkeypatch, capsys):
    for code, problems in ((0, []), (1, ["not the same"])):
        answers["answer"] = Found(tokens=(3, 3), problems=problems)
        rows = [check.row("test", CASE, check.judged("test", CASE, tmp_path))]
        monkeypatch.setattr(check, "chosen", lambda only: {"test": [CASE]})
        monkeypatch.setattr(check, "check_client", lambda name, cases, out, rows=rows: rows)
        monkeypatch.setattr(sys, "argv", ["check", "--out", str(tmp_path)])
        with pytest.raises(SystemExit) as ended:
            check.main()
        assert ended.value.code == code
        last = capsys.readouterr().out.splitlines()[-1]
        assert json.loads(last)["failed"] == code
        assert (
            json.loads((tmp_path / "interop.json").read_text())["rows"] == json.loads(last)["rows"]
        )


def test_every_client_has_cases_of_its_own(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    from tests.parity.cases import all_cases

    sources = {case.folder for case in all_cases()}
    for name, cases in registry.chosen([]).items():
        assert len({case.name for case in cases}) == len(cases) > 0, name
        assert {case.source for case in cases} <= sources, name
    with pytest.raises(SystemExit, match="nothing is named"):
        registry.chosen(["optimum/none"])
