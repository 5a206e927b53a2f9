"""The command `predict`: answers texts with a bundle."""

from __future__ import annotations

import inspect
import io
import json
import os
import stat
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import click

from serve.commands.generation_options import generation_options
from serve.commands.progress import Progress
from serve.commands.shared import bundle_argument, quiet_ends
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
    "--draft", metavar="BUNDLE", help="A smaller model of the same tokens, to write ahead."
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
    """
    from serve.bundle.manifest import Manifest
    from serve.pipelines import load, pipeline_class

    settings = given_settings(options)
    if stream and as_json:
        raise click.UsageError("--stream and --json exclude each other")
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
    pipeline = load(bundle, task, providers=providers or None, threads=threads, **choices)
    lines = _Lines(kind, texts)
    try:
        pipeline.settings(**settings)
        if stream:
            _stream(pipeline, lines, settings)
        else:
            _answer(pipeline, lines, settings, as_json)
    except InputError as error:
        where = "" if error.row is None else f"{lines.where(error.row)}: "
        raise InputError(where + in_options(error.message, names)) from error
    if not lines.count:
        raise InputError("nothing to answer: give TEXT, or lines on standard input")


def _answer(pipeline: Any, lines: _Lines, settings: dict[str, Any], as_json: bool) -> None:
    if lines.typed:
        pipeline.read_ahead = 1
    cut = 0
    with Progress("texts", lines.total, quiet=sys.stdout.isatty() or lines.typed) as progress:
        for result in pipeline(iter(lines), **settings):
            text = lines.answered()
            if as_json:
                click.echo(json.dumps({"input": text, **result.to_dict()}, ensure_ascii=False))
            else:
                click.echo(str(result))
            if lines.open == 0:  # a batch is done, and a reader may wait for it
                sys.stdout.flush()
            cut += bool(getattr(result, "truncated", False))
            progress.advance(amount=lines.size(text))
    if cut and not as_json:
        texts = "the text was" if lines.count == 1 else f"{cut} of {lines.count} texts were"
        click.echo(f"note: {texts} longer than the model reads, and cut", err=True)


def _stream(pipeline: Any, lines: _Lines, settings: dict[str, Any]) -> None:
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


class _Lines:
    """The inputs: TEXTs, or lines of standard input, of which few are held at once.

    Attributes:
        count: Texts read so far.
        open: Texts read and not answered yet.
        typed: They are being typed.
        total: How much there is: TEXTs, or bytes of a file on standard input; None if unknown.
    """

    def __init__(self, kind: type[Any], texts: tuple[str, ...]) -> None:
        self.kind = kind
        self.texts = texts
        self.typed = not texts and sys.stdin.isatty()
        self.total = len(texts) if texts else _bytes_of_input()
        self.count = 0
        self._pending: deque[tuple[int, str]] = deque()  # read and not answered, with their numbers

    def __iter__(self) -> Iterator[Any]:
        lines: Iterable[str] = self.texts or _lines_of_input()
        for number, line in enumerate(lines, 1):
            text = line.rstrip("\r\n")
            if not text.strip():
                continue
            self._pending.append((number, text))
            row, self.count = self.count, self.count + 1
            try:
                item = _item(self.kind, text)
            except InputError as error:
                if self.texts:
                    raise click.UsageError(f"{self.where(row)}: {error.message}") from error
                raise InputError(error.message, row) from error
            yield item

    @property
    def open(self) -> int:
        return len(self._pending)

    def answered(self) -> str:
        """The text that has an answer now."""
        return self._pending.popleft()[1]

    def size(self, text: str) -> int:
        """How much of `total` a text is."""
        return 1 if self.texts else len(text.encode("utf-8", "surrogateescape")) + 1

    def where(self, row: int) -> str:
        """What a user calls an input that is not answered yet."""
        number, _ = self._pending[row - (self.count - len(self._pending))]
        if self.texts:
            return f"TEXT {number}" if len(self.texts) > 1 else "TEXT"
        return f"line {number}"


def _bytes_of_input() -> int | None:
    try:
        found = os.fstat(sys.stdin.fileno())
    except (OSError, ValueError, io.UnsupportedOperation):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _lines_of_input() -> Iterator[str]:
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")
    try:
        yield from sys.stdin
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not UTF-8: {error}") from error


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


def _item(kind: type[Any], text: str) -> Any:
    """A text, or the pair or words that it holds."""
    if text.lstrip().startswith("{"):
        try:
            item = json.loads(text)
        except ValueError:
            item = None
        if isinstance(item, dict) and set(item) in map(set, kind.input_keys()):
            return item  # else a text that happens to look like JSON
    if getattr(kind, "pairs", "no") != "must":
        return text
    [names] = kind.input_keys()
    example = ", ".join(f'"{name}": ...' for name in names)
    if names != ("question", "context"):
        raise InputError(f"expected {{{example}}}, got {text!r:.60}")
    question, tab, context = text.partition("\t")
    if not tab:
        raise InputError(
            f"expected a question and a context: separated by a tab, or {{{example}}}; "
            f"got {text!r:.60}"
        )
    return question, context
