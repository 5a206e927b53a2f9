"""The commands `zoo train` and `zoo list`."""

import json
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

__all__ = ["list_", "train"]

_EXAMPLE = "for example: zoo train dates --set training.epochs=1 --out runs/dates"


@click.command(epilog=_EXAMPLE)
@click.argument("config")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting by its dotted path; the value is read as YAML. May be repeated.",
)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Run folder; runs/<name>."
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint of the run folder.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def train(
    config: str, overrides: tuple[str, ...], out: Path | None, resume: bool, quiet: bool
) -> None:
    """Train the recipe CONFIG: a YAML file, or the name of one that `zoo list` shows."""
    from zoo.training.load import load_recipe

    recipe = load_recipe(config, overrides)  # before TensorFlow: mistakes are told at once
    out = out or Path("runs") / recipe.name

    from zoo.quiet import start_tensorflow

    start_tensorflow()
    from zoo.training.display import metrics_table, training_line
    from zoo.training.trainer import InterruptedTrainingError
    from zoo.training.trainer import train as train_recipe

    console = Console()
    try:
        run = train_recipe(recipe, out, resume=resume, quiet=quiet)
    except InterruptedTrainingError as stop:
        click.echo(str(stop), err=True)
        click.echo(f"Go on with: {_resume_command(config, overrides, out)}", err=True)
        sys.exit(130)
    if not (run.folder / "metrics.json").is_file():
        return  # a worker that is not the chief
    console.print(metrics_table(run.metrics, f"{recipe.name} · {recipe.task}"))
    for line in (training_line(run.metrics), f"Run folder: {run.folder}"):
        console.print(line, highlight=False, soft_wrap=True)


def _resume_command(config: str, overrides: tuple[str, ...], out: Path) -> str:
    import shlex

    words = ["zoo", "train", config]
    for override in overrides:
        words += ["--set", override]
    return shlex.join([*words, "--out", str(out), "--resume"])


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option("--params", is_flag=True, help="Count each preset's parameters (allocates none).")
def list_(as_json: bool, params: bool) -> None:
    """Show recipes, families with their presets, shapes, tasks, tokenizer kinds and sources."""
    listing = collect_listing()
    if params:
        from zoo.quiet import start_tensorflow

        start_tensorflow()
        count_presets(listing["families"])
        count_shapes(listing["shapes"])
    if as_json:
        click.echo(json.dumps(listing, ensure_ascii=False, indent=2))
        return
    console = Console()
    recipes = Table(title="recipes", title_justify="left", title_style="bold", box=None)
    for name in ("name", "task", "description"):
        recipes.add_column(name, overflow="fold")
    for recipe in listing["recipes"]:
        recipes.add_row(recipe["name"], recipe["task"], recipe["description"])
    console.print(recipes)
    families = Table(title="\nfamilies", title_justify="left", title_style="bold", box=None)
    for name in ("model_type", "architecture", "tasks", "presets"):
        families.add_column(name, overflow="fold")
    for entry in listing["families"]:
        presets = [
            f"{name} ({preset.get('counted', preset['parameters']):,})"
            for name, preset in entry["presets"].items()
        ]
        families.add_row(
            entry["model_type"],
            entry["architecture"],
            ", ".join(entry["tasks"]),
            "\n".join(presets),
        )
    console.print(families)
    shapes = Table(title="\nshapes", title_justify="left", title_style="bold", box=None)
    for name in ("name", "architecture", "task", "parameters"):
        shapes.add_column(name, overflow="fold")
    for name, entry in listing["shapes"].items():
        size = f"{entry.get('counted', entry['parameters']):,}"
        shapes.add_row(name, entry["architecture"], entry["task"], size)
    console.print(shapes)
    for title in ("tasks", "architectures", "tokenizers", "sources"):
        names = listing[title]
        if isinstance(names, dict):
            names = [f"{name} ({what})" for name, what in names.items()]
        console.print(f"\n[bold]{title}[/bold]\n  " + "\n  ".join(names), highlight=False)


def collect_listing() -> dict[str, Any]:
    """Returns what there is to train with; imports no framework."""
    from zoo.backbones.config import ARCHITECTURES, architecture_of
    from zoo.data.sources import SOURCES
    from zoo.errors import ConfigError
    from zoo.families import model_types
    from zoo.presets import SHAPES
    from zoo.training.load import available_recipes, load_recipe
    from zoo.training.recipe import TASKS, TOKENIZERS

    recipes = []
    for name, path in available_recipes().items():
        try:
            recipe = load_recipe(path)
            facts = {"task": recipe.task, "description": recipe.description}
        except ConfigError as error:
            facts = {"task": "", "description": f"cannot be read: {str(error).splitlines()[0]}"}
        recipes.append({"name": name, "path": str(path), **facts})
    return {
        "recipes": recipes,
        "families": [_family_facts(model_type) for model_type in model_types()],
        "shapes": {
            name: {
                "architecture": architecture_of(shape.config),
                "task": shape.task,
                "parameters": shape.parameters,
                "source": shape.source,
            }
            for name, shape in SHAPES.items()
        },
        "tasks": TASKS,
        "architectures": list(ARCHITECTURES),
        "tokenizers": list(TOKENIZERS),
        "sources": list(SOURCES),
    }


def _family_facts(model_type: str) -> dict[str, Any]:
    from zoo.backbones.config import ARCHITECTURES
    from zoo.families import family

    found = family(model_type)
    architecture = next(name for name, cls in ARCHITECTURES.items() if cls is found.config)
    presets = {
        name: {"parameters": preset.parameters, "task": preset.task}
        for name, preset in found.presets.items()
    }
    return {
        "model_type": model_type,
        "architecture": architecture,
        "tasks": list(found.forms),
        "presets": presets,
        "source": found.source,
    }


def count_presets(families: list[dict[str, Any]]) -> None:
    """Adds to each preset how many parameters its model has, counted from shapes."""
    from zoo.checkpoints.count import count_parameters
    from zoo.checkpoints.load import preset_config
    from zoo.families import family

    for entry in families:
        for name, preset in entry["presets"].items():
            config = preset_config(family(entry["model_type"]), name)
            preset["counted"] = count_parameters(config, preset["task"])


def count_shapes(shapes: dict[str, dict[str, Any]]) -> None:
    """Adds to each shape how many parameters its model has, counted likewise."""
    from zoo.checkpoints.count import count_parameters
    from zoo.presets import SHAPES

    for name, entry in shapes.items():
        entry["counted"] = count_parameters(SHAPES[name].config, entry["task"])
