"""Options that are settings of a task, and errors in their words."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from serve.commands.generation_options import collect

_Command = TypeVar("_Command", bound=Callable[..., None])

TASK_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "long": (
        "--long",
        {
            "metavar": "windows|cut|error",
            "help": "What to do with texts longer than the model reads.",
        },
    ),
    "instruction": (
        "--instruction",
        {"help": "Text put before every text, such as 'summarize: '."},
    ),
    "source_language": (
        "--source-language",
        {"help": "What texts to translate are written in, as the model names it."},
    ),
    "target_language": ("--target-language", {"help": "What to translate them into."}),
    "stride": ("--stride", {"type": int, "help": "Tokens that windows of a long text share."}),
    "multi_label": (
        "--multi-label/--single-label",
        {"default": None, "help": "Whether several labels may hold at once."},
    ),
    "threshold": (
        "--threshold",
        {"type": float, "help": "Probability from which a label holds, with --multi-label."},
    ),
    "candidate_labels": (
        "--labels",
        {"multiple": True, "help": "Labels of zero-shot-classification: a,b,c; or given again."},
    ),
    "hypothesis_template": (
        "--hypothesis-template",
        {"help": "What zero-shot-classification claims of a text; {} is the label."},
    ),
    "aggregation": (
        "--aggregation",
        {
            "metavar": "none|simple|first|average|max",
            "help": "How labels of pieces become labels of words and entities.",
        },
    ),
    "targets": (
        "--target",
        {"multiple": True, "help": "Token that may fill a mask; may be given again."},
    ),
    "max_answer_length": (
        "--max-answer-length",
        {"type": int, "help": "Most tokens of an answer found in a context."},
    ),
    "handle_impossible": (
        "--handle-impossible",
        {"is_flag": True, "default": None, "help": "A context may hold no answer."},
    ),
    "no_answer_threshold": (
        "--no-answer-threshold",
        {"type": float, "help": "How much likelier than an answer none must be."},
    ),
    "scores": (
        "--scores",
        {"metavar": "probability|raw", "help": "What documents are sorted and shown by."},
    ),
    "pooling": (
        "--pooling",
        {"metavar": "mean|cls|max|last|none", "help": "How states of tokens become a vector."},
    ),
    "normalize": (
        "--normalize/--no-normalize",
        {"default": None, "help": "Whether vectors have length 1."},
    ),
    "prompt": ("--prompt", {"help": "Text put before every text to embed."}),
    "prompt_name": ("--prompt-name", {"help": "The same, by the name that the model gives it."}),
    "dimensions": ("--dimensions", {"type": int, "help": "Numbers of a vector to keep."}),
    "precision": (
        "--precision",
        {"metavar": "float32|int8|binary", "help": "What a vector's numbers are."},
    ),
}
"""Setting to option. What a value may be is checked by the task, which also knows defaults."""


def task_options(command: _Command) -> _Command:
    """Give a command every option of the table, by the names of the settings."""
    for setting, (flags, facts) in reversed(TASK_OPTIONS.items()):
        command = click.option(flags, setting, **facts)(command)
    return command


def given_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of tasks and of generation from a command's options: those that were given."""
    settings = {name: options[name] for name in TASK_OPTIONS if options.get(name) not in (None, ())}
    settings |= collect(options)
    if "candidate_labels" in settings:
        parts = (part for given in settings["candidate_labels"] for part in given.split(","))
        settings["candidate_labels"] = [part.strip() for part in parts if part.strip()]
    return settings


def option_names(command: click.Command) -> dict[str, tuple[str, str]]:
    """Settings to what turns them on, and off where that is an option of its own."""
    return {
        param.name: (param.opts[0], (param.secondary_opts or param.opts)[0])
        for param in command.params
        if isinstance(param, click.Option) and param.name is not None
    }


def in_options(message: str, names: Mapping[str, tuple[str, str]]) -> str:
    """An error's message with options for settings: "long='x'" becomes "--long x"."""
    for setting, (on, off) in names.items():
        message = re.sub(rf"\b{setting}=True\b", on, message)
        message = re.sub(rf"\b{setting}=False\b", off, message)
        message = re.sub(rf"\b{setting}='([^']*)'", rf"{on} \1", message)
        message = re.sub(rf"\b{setting}=", f"{on} ", message)
        message = re.sub(rf"^{setting}(?=:| is )", on, message)
    return message
