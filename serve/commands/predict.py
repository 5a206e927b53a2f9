"""The command `predict`: answers texts with a bundle."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import click

from serve.commands.shared import bundle_argument, quiet_ends
from serve.errors import InputError

_GENERATION = ("text-generation", "text2text-generation")
_PAIRS = {
    "question-answering": {"question", "context"},
    "sentence-similarity": {"text", "pair"},
    "text-classification": {"text", "pair"},
}


@click.command("predict")
@bundle_argument
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per answer.")
@click.option("--max-new-tokens", type=click.IntRange(1), help="Most tokens to generate.")
@click.option("--temperature", type=float, help="Draw at random; below 1 is more certain.")
@click.option("--top-k", type=click.IntRange(1), help="Draw among (or show) the k likeliest.")
@click.option("--top-p", type=float, help="Draw among the likeliest that hold this probability.")
@click.option("--seed", type=click.IntRange(0), help="Make the draw repeatable.")
@click.option("--stop", multiple=True, help="Text that ends the answer; may be given again.")
@click.option("--stream", is_flag=True, help="Show generated text as it comes.")
@click.option("--provider", "providers", multiple=True, help="Execution provider: cpu, cuda, ...")
@click.option("--threads", type=click.IntRange(1), help="Threads inside an operator.")
@click.option("--batch-size", type=click.IntRange(1), help="Most texts per run of the model.")
@quiet_ends
def predict(
    bundle: str,
    texts: tuple[str, ...],
    as_json: bool,
    stream: bool,
    providers: tuple[str, ...],
    threads: int | None,
    batch_size: int | None,
    stop: tuple[str, ...],
    **sampling: Any,
) -> None:
    """Answer every TEXT, or every line of standard input, with a BUNDLE.

    Two texts are given as a JSON object: {"question": ..., "context": ...} or
    {"text": ..., "pair": ...}; a question and its context may also be separated by a tab.
    """
    from serve.bundle.manifest import Manifest
    from serve.pipelines import load

    settings = {name: value for name, value in sampling.items() if value is not None}
    if stop:
        settings["stop"] = stop
    if stream and as_json:
        raise click.UsageError("--stream and --json exclude each other")
    task = Manifest.load(bundle, check=False).task
    _refuse_options(task, settings, stream)
    pipeline = load(bundle, providers=providers or None, threads=threads)
    if batch_size:
        pipeline.batch_size = batch_size
    if stream:
        for [(_, prompt)] in _inputs(texts, 1):
            for piece in pipeline.stream(prompt, **settings):
                click.echo(piece, nl=False)
                sys.stdout.flush()
            click.echo()
        return
    rows = 1 if not texts and sys.stdin.isatty() else 4 * pipeline.batch_size
    for batch in _inputs(texts, rows):
        items = [_item(task, text, bool(texts)) for _, text in batch]
        try:
            results = pipeline(items, **settings)
        except InputError as error:
            where = "TEXT" if texts else "line"
            span = str(batch[0][0]) if len(batch) == 1 else f"{batch[0][0]} to {batch[-1][0]}"
            raise InputError(f"{where} {span}: {error}") from error
        for (_, text), result in zip(batch, results, strict=True):
            if as_json:
                answer = {"input": text, **result.to_dict()}
                click.echo(json.dumps(answer, ensure_ascii=False))
            else:
                click.echo(str(result))
                if getattr(result, "truncated", False):
                    click.echo("note: the text was longer than the model reads, and cut", err=True)
        sys.stdout.flush()


def _refuse_options(task: str, settings: dict[str, Any], stream: bool) -> None:
    """Options that mean nothing to the task are wrong use, not something to overlook."""
    allowed = {"top_k"} if task == "fill-mask" else set()
    wrong = sorted(set(settings) - allowed) + (["stream"] if stream else [])
    if task not in _GENERATION and wrong:
        raise click.UsageError(f"--{wrong[0].replace('_', '-')} means nothing to the task {task}")


def _inputs(texts: tuple[str, ...], rows: int) -> Iterator[list[tuple[int, str]]]:
    """Numbered texts in batches; of standard input no more than a batch is held in memory."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")
    lines: Iterable[str] = iter(texts or sys.stdin)
    numbered = ((at, line.rstrip("\r\n")) for at, line in enumerate(lines, 1) if line.strip())
    found = False
    while batch := _read_batch(numbered, rows):
        found = True
        yield batch
    if not found:
        raise InputError("nothing to answer: give TEXT, or lines on standard input")


def _read_batch(numbered: Iterator[tuple[int, str]], rows: int) -> list[tuple[int, str]]:
    try:
        return list(islice(numbered, rows))
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not UTF-8: {error}") from error


def _item(task: str, text: str, argument: bool) -> Any:
    """A text, or the pair that it holds."""
    keys = _PAIRS.get(task)
    if keys is None:
        return text
    if text.lstrip().startswith("{"):
        try:
            item = json.loads(text)
        except ValueError:
            item = None
        if isinstance(item, dict) and set(item) == keys:
            return item  # else a text that happens to look like JSON
    if task != "question-answering":
        return text
    if "\t" in text:
        question, context = text.split("\t", 1)
        return question, context
    message = (
        f"{task} needs a question and a context: separated by a tab, "
        'or {"question": ..., "context": ...}'
    )
    raise click.UsageError(message) if argument else InputError(f"{message}; got {text!r:.60}")
