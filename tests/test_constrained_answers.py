"""Constrained answers of a bundle, through the engine."""

import json
import re
from pathlib import Path

import pytest
import serve_bundles as bundles

import serve

pytest.importorskip("llguidance")
CHOICES = ("日本語", "日本", "😀 smile", 'a.b/c\n"d\\', " lead", "naïve")
DATE = r"\d{1,2}(/[a-zéß日]{2,3})?"


@pytest.fixture(scope="module", params=["buffer", "grow"])
def writer(tmp_path_factory, request):
    return serve.load(bundles.decoder_bundle(tmp_path_factory.mktemp("w") / "b", request.param))


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"do_sample": True, "temperature": 5.0, "num_return_sequences": 6, "seed": 3},
        {"num_beams": 4, "num_return_sequences": 4},
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0},
        {"do_sample": True, "num_beams": 3, "seed": 1},
        {"repetition_penalty": 3.0, "no_repeat_ngram_size": 3},
        {"prompt_lookup": 4},
    ],
)
def test_answers_follow_however_they_are_chosen(writer, how):
    texts = ["the cat", "日本語", "bread and honey"]
    for constraint, right in (
        ({"choices": CHOICES}, lambda text: text in CHOICES),
        ({"regex": DATE}, lambda text: re.fullmatch(DATE, text)),
    ):
        settings = {"max_new_tokens": 30, **constraint, **how}
        for text, answer in zip(texts, writer(texts, **settings), strict=True):
            shown = [answer, *answer.sequences]
            assert all(right(one.text) for one in shown), shown
            assert {one.finish_reason for one in shown} <= {"eos", "constraint"}
            alone = writer(text, **settings)
            assert alone.text == answer.text and alone.token_ids == answer.token_ids


def test_requests_of_a_batch_may_follow_different_forms(writer):
    generator, tokenizer = writer.generator, writer.tokenizer
    ids = [list(one.ids) for one in tokenizer.encode(["the cat", "the sea", "bread"])]
    forms = [{"choices": ["yes", "no"]}, {"regex": r"\d{3}"}, {"json_schema": {"const": [1]}}]
    settings = [generator.settings(max_new_tokens=20, **form) for form in forms]
    one, two, three = map(tokenizer.decode, generator.generate_ids(ids, settings))
    assert one in ("yes", "no") and re.fullmatch(r"\d{3}", two) and three == "[1]"


def test_a_model_without_an_end_stops_where_nothing_may_follow(writer):
    answer = writer("the cat", choices=["yes", "no"], ignore_eos=True, max_new_tokens=30)
    assert answer.text in ("yes", "no") and answer.finish_reason == "constraint"


def test_the_lines_of_the_documents(writer, tmp_path, monkeypatch, capsys):
    page = Path(__file__).parents[1] / "docs" / "constraints.md"
    [code] = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL)
    bundles.decoder_bundle(tmp_path / "bundles" / "writer")
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace("max_new_tokens=60", "max_new_tokens=50"), page, "exec"), {})
    choice, date, value, total = capsys.readouterr().out.splitlines()
    assert choice in ("good", "bad", "so so")
    assert re.fullmatch(r"\d{1,2} (May|June) (19|20)\d\d", date)
    assert set(json.loads(value)) == {"name", "age"}
    assert total[0].isdigit()
