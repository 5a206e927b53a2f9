"""The options of generation that commands share: a table from settings to what is typed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from serve.commands.texts import file_or_text
from serve.errors import InputError

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class _Option:
    """One option.

    Attributes:
        name: The field of `GenerationSettings`.
        help: What it does.
        type: How its text is read; None for a flag.
        flag: What is typed, where it is not the field's name with dashes.
        multiple: It may be given several times, and the setting is the list.
    """

    name: str
    help: str
    type: click.ParamType | None
    flag: str | None = None
    multiple: bool = False


class _Bias(click.ParamType):
    """ID=VALUE."""

    name = "ID=VALUE"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, float]:
        token, _, bias = str(value).partition("=")
        try:
            return int(token), float(bias)
        except ValueError:
            self.fail(f"{value!r}: expected a token id and a number, such as 42=-1.5", param, ctx)


class _Stopping(click.ParamType):
    """When a beam search ends."""

    name = "yes|no|never"
    _values: Mapping[str, bool | str] = {"yes": True, "no": False, "never": "never"}

    def convert(self, value: Any, param: Any, ctx: Any) -> bool | str:
        if value not in self._values:
            self.fail(f"{value!r}: expected one of {', '.join(self._values)}", param, ctx)
        return self._values[value]


class _FileOrText(click.ParamType):
    """A text, or the file that holds it."""

    name = "FILE|TEXT"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        try:
            return file_or_text(str(value))
        except InputError as error:
            self.fail(error.message, param, ctx)


class _Schema(_FileOrText):
    """A JSON schema."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        text = super().convert(value, param, ctx)
        try:
            return json.loads(text)
        except ValueError as error:
            self.fail(f"{value!r:.60} is neither a file nor JSON: {error}", param, ctx)


_POSITIVE = click.IntRange(1)
_COUNT = click.IntRange(0)
_SHARE = click.FloatRange(0, 1, min_open=True)
_ABOVE_0 = click.FloatRange(0, min_open=True)

_TABLE = (
    _Option("max_new_tokens", "Most tokens to generate.", _POSITIVE),
    _Option("min_new_tokens", "Fewest tokens to generate.", _COUNT),
    _Option("max_length", "Most tokens, those that the answer begins with included.", _POSITIVE),
    _Option("min_length", "Fewest tokens, those that the answer begins with included.", _COUNT),
    _Option("do_sample", "Draw at random, or take the likeliest.", None, "do-sample/--greedy"),
    _Option("temperature", "Draw at random; below 1 is more certain.", _ABOVE_0),
    _Option("top_k", "Draw among (or show) the k likeliest.", _POSITIVE),
    _Option("top_p", "Draw among the likeliest that hold this probability.", _SHARE),
    _Option("min_p", "Draw among those this share as likely as the likeliest.", _SHARE),
    _Option("typical_p", "Draw among the most typical that hold this probability.", _SHARE),
    _Option("seed", "Make the draw repeatable.", _COUNT),
    _Option("num_return_sequences", "Answers to each text.", _POSITIVE),
    _Option("num_beams", "Hypotheses of a beam search; 1 is none.", _POSITIVE),
    _Option("num_beam_groups", "Groups of beams that are kept apart.", _POSITIVE),
    _Option("diversity_penalty", "How much groups are kept apart.", click.FLOAT),
    _Option("length_penalty", "Above 0 favours long hypotheses.", click.FLOAT),
    _Option("early_stopping", "When a beam search ends.", _Stopping()),
    _Option("repetition_penalty", "Above 1 avoids what was written.", _ABOVE_0),
    _Option("presence_penalty", "Taken from tokens that the answer holds.", click.FLOAT),
    _Option("frequency_penalty", "Taken from tokens, times their number.", click.FLOAT),
    _Option("no_repeat_ngram_size", "No n-gram of this length twice.", _COUNT),
    _Option("encoder_no_repeat_ngram_size", "No n-gram of this length of the input.", _COUNT),
    _Option(
        "bad_words", "Text never to write; may be given again.", click.STRING, "bad-word", True
    ),
    _Option("logit_bias", "Added to a token's logit; may be given again.", _Bias(), None, True),
    _Option("suppress_tokens", "Token never to write.", _COUNT, "suppress-token", True),
    _Option("forced_bos_token_id", "First token of an encoder-decoder's answer.", _COUNT),
    _Option("forced_eos_token_id", "The last token of a full answer.", _COUNT),
    _Option("eos_token_id", "Token that ends the answer.", _COUNT, None, True),
    _Option("ignore_eos", "Go on behind end tokens.", None),
    _Option("stop", "Text that ends the answer; may be given again.", click.STRING, None, True),
    _Option("logprobs", "Say how likely tokens were, and so many of the likeliest.", _COUNT),
    _Option("penalty_alpha", "Contrastive search among the top-k: weight of being new.", _SHARE),
    _Option("prompt_lookup", "Tokens to guess ahead from the text's own repetitions.", _COUNT),
    _Option("regex", "A regular expression that the answer matches.", click.STRING),
    _Option("json_schema", "A JSON schema that the answer is an instance of.", _Schema()),
    _Option("choices", "One of the answers to choose from.", click.STRING, "choice", True),
    _Option("grammar", "A Lark grammar that the answer follows.", _FileOrText()),
)


def generation_options(command: _Command) -> _Command:
    """Adds the options of generation to a command; it gets each by its setting's name."""
    for option in reversed(_TABLE):
        flag = option.flag or option.name.replace("_", "-")
        settings: dict[str, Any] = {"type": option.type, "multiple": option.multiple}
        if option.type is None:
            settings = {"is_flag": True}
        declared = click.option(
            f"--{flag}", option.name, default=None, help=option.help, **settings
        )
        command = declared(command)
    return command


def collect(options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that were given, of a command's arguments; others of its own are passed over."""
    given = {
        option.name: options[option.name]
        for option in _TABLE
        if options.get(option.name) not in (None, ())
    }
    if "logit_bias" in given:
        given["logit_bias"] = dict(given["logit_bias"])
    return given
