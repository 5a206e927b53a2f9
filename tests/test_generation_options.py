"""The options of generation, as they are typed."""

import json
from dataclasses import fields

import click
import pytest
from click.testing import CliRunner

from serve.commands.generation_options import collect, generation_options
from serve.decoding.settings import GenerationSettings

NO_OPTION = {
    "begin_suppress_tokens", "renormalize_logits", "pad_token_id", "draft_tokens",
    "bad_words_ids",
}  # fmt: skip


@click.command()
@click.option("--other", default="x")
@generation_options
def command(**options):
    click.echo(json.dumps(collect(options)))


def typed(*arguments):
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def refused(*arguments):
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 2
    return " ".join(result.output.split())


def test_nothing_typed_is_nothing_given():
    assert typed() == typed("--other", "y") == {}


def test_every_setting_has_an_option():
    names = {one.name for one in command.params} - {"other"}
    settings = {one.name for one in fields(GenerationSettings)}
    assert names - settings == set()
    assert settings - names == NO_OPTION


def test_values(tmp_path):
    schema, grammar = tmp_path / "schema.json", tmp_path / "grammar.lark"
    schema.write_text('{"type": "integer"}')
    grammar.write_text('start: "é"', encoding="utf-8")
    assert typed(
        "--max-new-tokens", "5", "--greedy", "--top-p", "0.5", "--early-stopping", "never",
        "--bad-word", "a b", "--bad-word", "c", "--logit-bias", "42=-1.5", "--logit-bias", "7=2",
        "--suppress-token", "3", "--stop", "x", "--ignore-eos", "--eos-token-id", "9",
        "--num-beams", "4", "--length-penalty", "-1",
    ) == {
        "max_new_tokens": 5, "do_sample": False, "top_p": 0.5, "early_stopping": "never",
        "bad_words": ["a b", "c"], "logit_bias": {"42": -1.5, "7": 2.0}, "suppress_tokens": [3],
        "stop": ["x"], "ignore_eos": True, "eos_token_id": [9], "num_beams": 4,
        "length_penalty": -1.0,
    }  # fmt: skip
    assert typed("--do-sample", "--early-stopping", "no") == {
        "do_sample": True, "early_stopping": False,
    }  # fmt: skip
    assert typed("--json-schema", str(schema)) == {"json_schema": {"type": "integer"}}
    assert typed("--json-schema", '{"type": "null"}') == {"json_schema": {"type": "null"}}
    assert typed("--grammar", str(grammar)) == {"grammar": 'start: "é"'}
    assert typed("--grammar", "start: " + "x" * 5000)["grammar"].startswith("start: xx")
    assert typed("--regex", "[a-z]+", "--choice", "a", "--choice", "b") == {
        "regex": "[a-z]+", "choices": ["a", "b"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--logit-bias", "a=1"), "expected a token id and a number"),
        (("--logit-bias", "5"), "such as 42=-1.5"),
        (("--early-stopping", "maybe"), "expected one of yes, no, never"),
        (("--json-schema", "{nothing"), "neither a file nor JSON"),
        (("--top-p", "1.5"), "range"),
        (("--max-new-tokens", "0"), "range"),
    ],
)
def test_what_cannot_be_read_is_wrong_use(arguments, words):
    assert words in refused(*arguments)


def test_settings_take_what_was_typed():
    given = typed("--temperature", "0.7", "--num-return-sequences", "3", "--min-p", "0.1")
    settings = GenerationSettings.for_model(None, **given)
    assert (settings.do_sample, settings.num_return_sequences) == (True, 3)


@pytest.mark.parametrize(
    "given", [("--grammar", "nofile.lark"), ("--json-schema", "there/is/nofile.json")]
)
def test_names_of_files_that_there_are_not(given):
    assert f"{given[1]}: there is no such file" in refused(*given)
