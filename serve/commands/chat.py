"""The command `chat`: a conversation with a bundle, typed or piped."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serve.commands.generation_options import collect, generation_options
from serve.commands.shared import bundle_argument, quiet_ends
from serve.commands.task_options import in_options, option_names
from serve.commands.texts import file_or_text
from serve.errors import BundleError, InputError

if TYPE_CHECKING:
    from serve.commands.conversation import Conversation

PROMPT = "> "


@click.command("chat")
@bundle_argument
@click.option("--system", metavar="FILE|TEXT", help="The system's message.")
@click.option(
    "--template",
    metavar="FILE|NAME",
    help="A Jinja template, one of the bundle's by name, or plain: the model continues texts.",
)
@click.option(
    "--overflow",
    type=click.Choice(["error", "drop_oldest"]),
    help="What to do when the conversation is longer than the model reads.",
)
@generation_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per answer.")
@click.option("--draft", metavar="BUNDLE", help="A smaller model of the same tokens writes ahead.")
@click.option("--provider", "providers", multiple=True, help="Execution provider: cpu, cuda, ...")
@click.option("--threads", type=click.IntRange(1), help="Threads inside an operator.")
@quiet_ends
def chat(
    bundle: str,
    system: str | None,
    template: str | None,
    overflow: str | None,
    as_json: bool,
    draft: str | None,
    providers: tuple[str, ...],
    threads: int | None,
    **options: Any,
) -> None:
    """Talk with a BUNDLE of a model that writes.

    Every line is a message of the user's; what was said before stays known. Lines that begin with /
    are commands, of which /help tells. Lines of standard input are answered one after the other.
    """
    from serve.commands.conversation import Conversation

    settings = collect(options)
    if overflow:
        settings["overflow"] = overflow
    try:
        pipeline = _open(bundle, _read(template), providers, threads, draft)
        chosen = pipeline.settings(**settings).generation
    except InputError as error:
        raise click.UsageError(in_options(error.message, option_names(chat))) from error
    if chosen.num_return_sequences > 1 or (chosen.num_beams > 1 and "num_beams" in settings):
        raise click.UsageError("a chat streams one answer: leave beams and several sequences out")
    if chosen.num_beams > 1:
        settings["num_beams"] = 1  # the bundle's default, which cannot be streamed
    _talk(Conversation(pipeline, settings, _read(system)), as_json)


def _open(
    bundle: str,
    template: str | None,
    providers: tuple[str, ...],
    threads: int | None,
    draft: str | None,
) -> Any:
    """The pipeline; a bundle that has no template only continues texts, which is said."""
    from serve.pipelines import load
    from serve.text.chat import PLAIN, has_template

    if template is None and Path(bundle).is_dir() and not has_template(bundle):
        template = PLAIN
    choices: dict[str, Any] = {"draft": draft} if draft else {}
    pipeline = load(
        bundle, "chat", providers=providers or None, threads=threads, template=template, **choices
    )
    if pipeline.template.plain:
        _note("plain continuation: the model goes on with the text, without turns of a chat")
    return pipeline


def _talk(talk: Conversation, as_json: bool) -> None:
    typed = sys.stdin.isatty()
    if typed:
        _note("/help tells what else there is to say, Ctrl-D leaves")
    for number, line in enumerate(_lines(typed), 1):
        try:
            said = talk.command(line)
            if said is not None:
                if said:
                    _note(said)
            elif line.strip():
                _answer(talk, line.removeprefix("/") if line.startswith("//") else line, as_json)
        except (InputError, BundleError) as error:
            if not typed:
                raise InputError(f"line {number}: {error}") from error
            _note(f"{error}")
        if talk.done:
            return


def _answer(talk: Conversation, text: str, as_json: bool) -> None:
    """Say something and show the answer as it comes; Ctrl-C at a terminal stops it."""
    stream = talk.ask(text)
    try:
        for piece in stream:
            if not as_json:
                click.echo(piece, nl=False)
                sys.stdout.flush()
    except KeyboardInterrupt:
        if not sys.stdin.isatty():
            raise
    reply = talk.keep(stream)
    if as_json:
        click.echo(json.dumps({"input": text, **reply.to_dict()}, ensure_ascii=False))
    else:
        click.echo()
    sys.stdout.flush()
    if reply.dropped_messages:
        _note(f"the oldest {reply.dropped_messages} messages were left out")
    if reply.finish_reason in ("length", "cancelled"):
        why = "max_new_tokens were used up" if reply.finish_reason == "length" else "stopped"
        _note(f"{why} after {len(reply.token_ids)} tokens")


def _lines(typed: bool) -> Iterator[str]:
    """What is typed, or the lines of standard input."""
    if not typed:
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(encoding="utf-8", errors="strict")
        try:
            for line in sys.stdin:
                yield line.rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InputError(f"standard input is not UTF-8: {error}") from error
        return
    _edit_lines()
    while True:
        try:
            yield input(PROMPT)
        except KeyboardInterrupt:
            click.echo()
        except EOFError:
            click.echo()
            return


def _edit_lines() -> None:
    """Cursor keys and a history, where Python has them."""
    try:
        import readline  # noqa: F401 - `input` uses it once it is there
    except ImportError:
        return


def _read(given: str | None) -> str | None:
    """The text of a file, or the text itself."""
    if given is None:
        return None
    try:
        return file_or_text(given)
    except InputError as error:
        raise click.UsageError(error.message) from error


def _note(text: str) -> None:
    """What is no answer goes beside it."""
    click.echo(click.style(text, dim=True), err=True)
