"""A run folder: what training leaves behind, and how it is read again."""

import csv
import functools
import json
import time
from pathlib import Path
from typing import Any

from zoo.backbones.config import TransformerConfig, config_from_mapping, config_to_mapping
from zoo.errors import RunError
from zoo.training.checkpoint import Progress, replace_file
from zoo.training.load import dump_recipe, recipe_from_mapping
from zoo.training.recipe import Recipe
from zoo.training.yaml_text import parse

__all__ = ["Run"]

RECIPE, CONFIG, WEIGHTS = "recipe.yaml", "config.json", "model.weights.h5"
METRICS, HISTORY, CURVES = "metrics.json", "history.csv", "curves.png"
_REDRAW_SECONDS = 30


class Run:
    """The result of training: `model`, `tokenizer`, `recipe`, `metrics` and the files of `folder`.

    Everything is read when it is first used. Files: recipe.yaml, config.json, model.weights.h5 (the
    best weights), tokenizer.json, tokenizer_config.json, metrics.json, history.csv, curves.png,
    tensorboard/, checkpoints/best and checkpoints/last.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._drawn = time.monotonic()

    @classmethod
    def load(cls, folder: str | Path) -> "Run":
        """Opens the folder of a run that has trained.

        Raises:
            RunError: It is not such a folder.
        """
        run = cls(folder)
        missing = [name for name in (RECIPE, CONFIG) if not (run.folder / name).is_file()]
        if missing:
            raise RunError(f"{run.folder} is no run folder: {' and '.join(missing)} missing.")
        if not (run.folder / WEIGHTS).is_file() and not run._best.is_file():
            raise RunError(f"{run.folder} has no weights yet: train with --resume to go on.")
        return run

    @functools.cached_property
    def recipe(self) -> Recipe:
        path = self.folder / RECIPE
        return recipe_from_mapping(parse(self._read(RECIPE), str(path)), str(path))

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """config.json: the task, its labels, the facts of the head, the model's config."""
        try:
            return json.loads(self._read(CONFIG))
        except ValueError as error:
            raise RunError(f"{self.folder / CONFIG} is not JSON: {error}.") from None

    @property
    def config(self) -> TransformerConfig:
        return config_from_mapping(self.facts["config"], str(self.folder / CONFIG))

    @property
    def labels(self) -> list[str] | None:
        return self.facts["labels"]

    @functools.cached_property
    def tokenizer(self) -> Any:
        from zoo.text import Tokenizer

        return Tokenizer.load(self.folder)

    @functools.cached_property
    def model(self) -> Any:
        """The model with its best weights, in float32, outside of any strategy."""
        from zoo.training.build import build_model

        model = build_model(self.recipe, self.config, self.labels)
        path = self.folder / WEIGHTS
        model.load_weights(path if path.is_file() else self._best)
        model.tokenizer = self.tokenizer
        return model

    @property
    def metrics(self) -> dict[str, Any]:
        """metrics.json; empty while the run is not finished."""
        path = self.folder / METRICS
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    @property
    def history(self) -> list[dict[str, float]]:
        """history.csv: one row per round."""
        path = self.folder / HISTORY
        if not path.is_file():
            return []
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            return [{key: float(value) for key, value in row.items() if value} for row in rows]

    @property
    def _best(self) -> Path:
        return self.folder / "checkpoints" / "best" / WEIGHTS

    def _read(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(encoding="utf-8")
        except OSError as error:
            raise RunError(f"{self.folder} is no run folder: {error}.") from None

    def begin(self, recipe: Recipe, config: TransformerConfig, labels: Any, tokenizer: Any) -> None:
        """Writes what a run is, before it trains; the recipe last, which makes the folder a run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(self.folder)
        facts = {
            "task": recipe.task,
            "labels": labels,
            "head": recipe.model.head,
            "config": config_to_mapping(config),
        }
        self.write_json(CONFIG, facts)
        self.write(RECIPE, dump_recipe(recipe))

    def write_history(self, progress: Progress) -> None:
        """Writes history.csv anew, and curves.png when it is old or the run is finished."""
        from zoo.training.curves import draw_curves

        names = list(dict.fromkeys(name for row in progress.history for name in row))

        def write(path: Path) -> None:
            with path.open("w", encoding="utf-8", newline="") as file:
                table = csv.DictWriter(file, names)
                table.writeheader()
                table.writerows(progress.history)

        replace_file(self.folder / HISTORY, write)
        if not progress.finished and time.monotonic() - self._drawn < _REDRAW_SECONDS:
            return
        self._drawn = time.monotonic()
        title = f"{self.recipe.name} · {self.recipe.task}"
        replace_file(self.folder / CURVES, lambda path: draw_curves(progress, path, title))

    def write_json(self, name: str, value: Any) -> None:
        self.write(name, json.dumps(value, ensure_ascii=False, indent=2) + "\n")

    def write(self, name: str, text: str) -> None:
        replace_file(self.folder / name, lambda path: path.write_text(text, encoding="utf-8"))
