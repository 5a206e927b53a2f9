"""The command `predict`: answers texts with a bundle."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping
from typing import Any

import click

from serve.commands.generation_options import generation_options
from serve.commands.lines import Lines
from serve.commands.progress import Progress
from serve.commands.shared import bundle_argument, bundle_folder, quiet_ends
from serve.commands.task_options import given_settings, in_options, option_names, task_options
from serve.errors import InputError


@click.command("predict")
@bundle_argument
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@click.option("--task", help="What to do, where the bundle can do more than it was made for.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per answer.")
@task_options
@generation_options
@click.option("--stream", is_flag=True, help="Show generated text as it comes.")
@click.option("--provider", "providers", multiple=True, help="Execution provider: cpu, cuda, ...")
@click.option("--threads", type=click.IntRange(1), help="Threads inside an operator.")
@click.option("--batch-size", type=click.IntRange(1), help="Most texts per run of the model.")
@click.option(
    "--draft",
    metavar="BUNDLE",
    type=bundle_folder,
    help="A smaller model of the same tokens, to write ahead.",
)
@quiet_ends
def predict(
    bundle: str,
    texts: tuple[str, ...],
    task: str | None,
    as_json: bool,
    stream: bool,
    providers: tuple[str, ...],
    threads: int | None,
    batch_size: int | None,
    draft: str | None,
    **options: Any,
) -> None:
    """Answer every TEXT, or every line of standard input, with a BUNDLE.

    Two texts are given as a JSON object: {"question": ..., "context": ...} or
    {"text": ..., "pair": ...}; a question and its context may also be separated by a tab. A text
    that is split into words already is {"tokens": [...]}.

    An empty line is an empty text. With --json every line has one line of answer. A line that
    cannot be answered ends the command with its number, once those before it are answered.
    """
    from serve.bundle.manifest import Manifest
    from serve.pipelines import load, pipeline_class

    settings = given_settings(options)
    if stream and as_json:
        raise click.UsageError("--stream and --json exclude each other")
    if settings.get("logprobs") is not None and not as_json:
        raise click.UsageError("--logprobs is shown with --json")
    if stream and max(settings.get(name, 1) for name in ("num_beams", "num_return_sequences")) > 1:
        raise click.UsageError("--stream shows one answer: leave beams and several sequences out")
    names = option_names(predict)
    manifest = Manifest.load(bundle, check=False)
    try:
        kind = pipeline_class(manifest, task)
    except InputError as error:
        raise click.UsageError(in_options(error.message, names)) from error
    task = task or manifest.task
    choices: dict[str, Any] = {"batch_size": batch_size, "draft": draft}
    choices = {name: value for name, value in choices.items() if value is not None}
    _refuse_options(kind, task, {**settings, **choices}, stream)
    lines = Lines(kind, texts)
    try:
        pipeline = load(bundle, task, providers=providers or None, threads=threads, **choices)
        pipeline.settings(**settings)
    except InputError as error:
        raise click.UsageError(in_options(error.message, names)) from error
    try:
        if stream:
            _stream(pipeline, lines, settings)
        else:
            _answer(pipeline, lines, settings, as_json)
    except InputError as error:
        message = in_options(error.message, names)
        if error.row is None:
            raise click.UsageError(message) from error
        raise InputError(f"{lines.where(error.row)}: {message}") from error
    if not lines.count:
        raise click.UsageError("nothing to answer: give TEXT, or lines on standard input")


def _answer(pipeline: Any, lines: Lines, settings: dict[str, Any], as_json: bool) -> None:
    if lines.typed:
        pipeline.read_ahead = 1
    cut = 0
    with Progress("texts", lines.total, quiet=sys.stdout.isatty() or lines.typed) as progress:
        for result in pipeline(iter(lines), **settings):
            text = lines.answered()
            if as_json:
                click.echo(json.dumps({"input": text, **result.to_dict()}, ensure_ascii=False))
            else:
                click.echo(_shown(result, settings))
            if lines.open == 0:  # a batch is done, and a reader may wait for it
                sys.stdout.flush()
            cut += bool(getattr(result, "truncated", False))
            progress.advance(amount=lines.size(text))
    if cut and not as_json:
        texts = "the text was" if lines.count == 1 else f"{cut} of {lines.count} texts were"
        click.echo(f"note: {texts} longer than the model reads, and cut", err=True)


def _stream(pipeline: Any, lines: Lines, settings: dict[str, Any]) -> None:
    for at, item in enumerate(lines):
        try:
            for piece in pipeline.stream(item, **settings):
                click.echo(piece, nl=False)
                sys.stdout.flush()
        except InputError as error:
            error.row = at
            raise
        lines.answered()
        click.echo()


def _shown(result: Any, settings: Mapping[str, Any]) -> str:
    """A result as text: several where several were asked for."""
    from serve.pipelines.results import Answer, Classification

    if getattr(result, "sequences", ()):
        return "\n".join(
            one.text if one.score is None else f"{one.text}\t{one.score:.4f}"
            for one in result.sequences
        )
    if "top_k" in settings and isinstance(result, Answer):
        return "\t".join(f"{span.text}\t{span.score:.4f}" for span in result.spans)
    if "top_k" in settings and isinstance(result, Classification) and result.labels is None:
        return "\t".join(f"{label}\t{score:.4f}" for label, score in result.scores.items())
    return str(result)


def _refuse_options(kind: type[Any], task: str, settings: dict[str, Any], stream: bool) -> None:
    """Options that mean nothing to the task are wrong use, not something to overlook."""
    known = [*kind.setting_names(), *inspect.signature(kind).parameters]
    names = option_names(predict)
    wrong = [names[setting][0] for setting in settings if setting not in known]
    if stream and not hasattr(kind, "stream"):
        wrong.append("--stream")
    if wrong:
        able = [on for setting, (on, _) in names.items() if setting in known]
        raise click.UsageError(
            f"{wrong[0]} means nothing to the task {task}, which takes {', '.join(able)}"
        )
