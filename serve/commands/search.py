"""The command `search`: passages of a folder of texts that answer queries."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from serve.commands.progress import Progress
from serve.commands.shared import bundle_argument, bundle_folder, quiet_ends
from serve.commands.task_options import in_options, option_names
from serve.errors import InputError

if TYPE_CHECKING:
    from serve.search.building import Changes
    from serve.search.index import Hit, Index


@click.command("search")
@bundle_argument
@click.argument("folder", type=click.Path())
@click.argument("queries", metavar="[QUERY]...", nargs=-1)
@click.option("--top-k", type=click.IntRange(1), default=5, show_default=True, help="Hits to show.")
@click.option(
    "--min-similarity", type=click.FloatRange(-1, 1), help="Leave out passages of a lower cosine."
)
@click.option(
    "--rerank",
    metavar="BUNDLE",
    type=bundle_folder,
    help="Sort the hits by a bundle that reads pairs.",
)
@click.option("--rerank-label", help="Its label that says that a passage fits, if it has several.")
@click.option("--candidates", type=click.IntRange(1), help="Passages that it reads (50).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per query.")
@click.option("--index", "path", type=click.Path(), help="The index; else beside the folder.")
@click.option("--rebuild", is_flag=True, help="Embed everything again.")
@click.option("--no-update", is_flag=True, help="Search the index as it is.")
@click.option("--passage-tokens", type=int, help="Most tokens of a passage.")
@click.option("--passage-overlap", type=int, help="Tokens that neighbouring passages share.")
@click.option("--pooling", metavar="mean|cls|max|last", help="How states become a vector.")
@click.option("--dimensions", type=int, help="Numbers of a vector to keep.")
@click.option("--query-prompt", help="Text put before queries.")
@click.option("--document-prompt", help="Text put before passages.")
@click.option("--suffix", "suffixes", multiple=True, help="Files to read; may be given again.")
@click.option("--text-key", help="Where the records of .jsonl files have their text.")
@click.option("--backend", metavar="numpy|faiss|faiss-ivf", default="numpy", show_default=True)
@click.option("--provider", "providers", multiple=True, help="Execution provider: cpu, cuda, ...")
@click.option("--threads", type=click.IntRange(1), help="Threads inside an operator.")
@quiet_ends
def search(
    bundle: str,
    folder: str,
    queries: tuple[str, ...],
    as_json: bool,
    providers: tuple[str, ...],
    threads: int | None,
    rerank: str | None,
    rerank_label: str | None,
    **options: Any,
) -> None:
    """Find the passages of a FOLDER of texts that are nearest to each QUERY, by a BUNDLE that makes
    vectors.

    The index is a file beside the folder (NAME.index). What is new or has changed in the folder is
    embedded first; without a QUERY that is all. How the index was built is kept in it: options
    that say it anew embed everything again.
    """
    from serve.pipelines import load

    if rerank is None and (rerank_label is not None or options["candidates"] is not None):
        wrong = "--candidates" if rerank_label is None else "--rerank-label"
        raise click.UsageError(f"{wrong} is about --rerank BUNDLE, which is not given")
    if not all(query.strip() for query in queries):
        raise click.UsageError("a QUERY is empty: expected a text")
    where: dict[str, Any] = {"providers": providers or None, "threads": threads}
    names = option_names(click.get_current_context().command)
    try:
        reranker = None
        if rerank is not None:
            reranker = load(rerank, task="reranking", label=rerank_label, **where)
        index = _open(load(bundle, task="sentence-similarity", **where), folder, options)
        answers = index.search(
            list(queries),
            options["top_k"],
            min_similarity=options["min_similarity"],
            reranker=reranker,
            candidates=options["candidates"],
        )
    except InputError as error:
        raise click.UsageError(in_options(str(error), names)) from error
    if index.changes is not None:
        _tell(index.changes, loud=not queries)
    if as_json and not queries:
        facts = {} if index.changes is None else index.changes.to_dict()
        click.echo(json.dumps({"passages": len(index), **facts}, ensure_ascii=False))
    for query, hits in zip(queries, answers, strict=True):
        if as_json:
            found = [hit.to_dict() for hit in hits]
            click.echo(json.dumps({"query": query, "hits": found}, ensure_ascii=False))
        else:
            _show(query if len(queries) > 1 else None, hits)


_SETTINGS = (
    "passage_tokens",
    "passage_overlap",
    "pooling",
    "dimensions",
    "query_prompt",
    "document_prompt",
    "suffixes",
    "text_key",
)


def _open(embedder: Any, folder: str, options: dict[str, Any]) -> Index:
    """The index, brought up to date unless it is to be searched as it is."""
    from serve.search.index import Index, index_path

    settings = {name: options[name] for name in _SETTINGS if options[name] not in (None, ())}
    if options["no_update"]:
        if settings or options["rebuild"]:
            raise click.UsageError("--no-update leaves the index as it is: it has its settings")
        path = options["path"] or index_path(folder)
        return Index(path, embedder, options["backend"])
    with Progress("passages") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.advance(done - bar.count)

        return Index.of_folder(
            embedder,
            folder,
            options["path"],
            rebuild=options["rebuild"],
            progress=progress,
            backend=options["backend"],
            **settings,
        )


def _tell(changes: Changes, loud: bool) -> None:
    """What was done to the index, on standard error."""
    if loud or changes.embedded or changes.removed:
        click.echo(f"index: {changes}", err=True)
    for name, reason in changes.skipped.items():
        click.echo(f"note: {name} was skipped: {reason}", err=True)


def _show(query: str | None, hits: list[Hit]) -> None:
    if query is not None:
        click.echo(f"{query}:")
    for hit in hits:
        click.echo(str(hit))
    if not hits:
        click.echo("nothing was found", err=True)
