"""The command `zoo evaluate`, and the reading of examples that others share with it."""

import json
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from export.errors import ExportError
from zoo.quiet import start_tensorflow


def _open_run(folder: Path) -> Any:
    """The run of a folder, or None where the folder is a bundle."""
    from zoo.training.run import Run

    if (folder / "manifest.json").is_file():
        return None
    return Run.load(folder)


@click.command()
@click.argument("folder", metavar="RUN|BUNDLE", type=click.Path(path_type=Path))
@click.option(
    "--data", type=click.Path(path_type=Path), help="Examples; else the recipe's test split."
)
@click.option("--split", type=click.Choice(["train", "validation", "test"]), default="test")
@click.option("--limit", type=click.IntRange(1), help="Measure only so many examples.")
@click.option("--group", help="A key of the examples to group by; by default the recipe's.")
@click.option("--baseline", is_flag=True, help="Measure the task's n-gram baseline beside it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def evaluate(
    folder: Path,
    data: Path | None,
    split: str,
    limit: int | None,
    group: str | None,
    baseline: bool,
    as_json: bool,
) -> None:
    """Measure a run (with Keras) or a bundle (through serve) on test data."""
    trained = _open_run(folder)
    recipe, manifest = _recipe_of(folder, trained)
    examples = read_examples(recipe, data, split)[:limit]
    if not examples:
        raise ExportError(f"there is no example in {data or f'the {split} split'}")
    group = group or (recipe.evaluation.group if recipe and data is None else None)
    start_tensorflow()
    if trained is not None:
        from zoo.evaluation import evaluate as measure
        from zoo.evaluation.prediction import predict_run

        started = time.perf_counter()
        predictions = predict_run(trained, examples)
        result = measure(recipe.task, predictions, examples, group)
    else:
        from export.evaluate import evaluate_bundle

        started = time.perf_counter()
        result = evaluate_bundle(manifest, examples, group=group)
    result["seconds"] = round(time.perf_counter() - started, 3)
    columns = {folder.name: result}
    if baseline:
        columns["n-gram baseline"] = _baseline(recipe, data)
    if as_json:
        click.echo(json.dumps(columns if baseline else result, ensure_ascii=False))
    else:
        _print(columns)


def _recipe_of(folder: Path, trained: Any) -> tuple[Any, Any]:
    """(recipe or None, manifest or None)."""
    if trained is not None:
        return trained.recipe, None
    from serve.bundle.manifest import Manifest
    from zoo.training.load import recipe_from_mapping

    manifest = Manifest.load(folder)
    mapping = manifest.source.get("recipe")
    where = f"{folder}/manifest.json: source.recipe"
    return (recipe_from_mapping(mapping, where) if mapping else None), manifest


def read_examples(recipe: Any, data: Path | None, split: str) -> list[dict[str, Any]]:
    if data is not None:
        from zoo.data import read

        if recipe is None or recipe.data.source is not None:
            return list(read(data))
        return list(read(data, recipe.data.format, **recipe.data.reader, **recipe.data.columns))
    if recipe is None:
        raise ExportError("the bundle does not say what it was trained on: give --data FILE")
    from zoo.training.build import load_examples

    return load_examples(recipe.data, recipe.training.seed, [split])[split]


def _baseline(recipe: Any, data: Path | None) -> dict[str, Any]:
    if recipe is None or data is not None:
        raise click.UsageError("--baseline goes with the recipe's own data, not with --data")
    from zoo.evaluation.baselines import baseline
    from zoo.training.build import load_examples

    return baseline(recipe.task, load_examples(recipe.data, recipe.training.seed))


def _print(columns: dict[str, dict[str, Any]]) -> None:
    console = Console()
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    first = next(iter(columns.values()))
    for key in first:
        if key != "groups":
            cells = [result.get(key) for result in columns.values()]
            table.add_row(key, *("" if cell is None else f"{cell:.4g}" for cell in cells))
    console.print(table)
    groups = first.get("groups")
    if not groups:
        return
    by_group = Table(box=None, pad_edge=False)
    names = [key for key in next(iter(groups.values())) if key != "groups"]
    for name in ("", *names):
        by_group.add_column(name, justify="right" if name else "left")
    worst = sorted(groups, key=lambda g: groups[g].get(names[-1 if len(names) == 1 else 1], 0))
    for name in worst:
        by_group.add_row(name, *(f"{groups[name].get(key, float('nan')):.4g}" for key in names))
    console.print(by_group)
