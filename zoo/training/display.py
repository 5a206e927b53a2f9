"""What a person sees while a model trains: a bar in a terminal, one line per round anywhere."""

import time
from typing import Any

import keras
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from zoo.training.checkpoint import Progress as RunProgress
from zoo.training.loop import Plan

__all__ = ["Display", "metrics_table", "training_line"]

_FACTS = ("round", "epoch", "update", "seconds")


class Display(keras.callbacks.Callback):
    """Shows the updates of a run as they pass.

    Args:
        plan: The rounds.
        progress: The run's progress, which `TrainingLoop` (called before this) keeps up to date.
        console: Where to write.
    """

    def __init__(self, plan: Plan, progress: RunProgress, console: Console | None = None) -> None:
        super().__init__()
        self.plan, self.progress = plan, progress
        self.console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._task: Any = None
        self._started = (0.0, 0)
        self._shown = 0.0

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._started = (time.monotonic(), self.progress.update)
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[facts]}"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self._task = self._bar.add_task(
                "training", total=self.plan.updates, completed=self.progress.update, facts=""
            )
            self._bar.start()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        now = time.monotonic()
        if self._bar is None or now - self._shown < 0.5:
            return
        self._shown = now
        facts = "  ".join(f"{name} {float(value):.4f}" for name, value in (logs or {}).items())
        self._bar.update(
            self._task,
            completed=self.progress.update,
            facts=f"{facts}  {self.updates_per_second():.1f}/s",
            description=f"round {self.progress.round + 1}/{self.plan.rounds}",
        )

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        row = self.progress.history[-1]
        facts = "  ".join(
            f"{name} {value:.4g}" for name, value in row.items() if name not in _FACTS
        )
        best = self.progress.best
        mark = "  best" if best and best["round"] == self.progress.round else ""
        self.console.print(
            f"round {row['round']}/{self.plan.rounds}  update {row['update']}  {facts}  "
            f"{self.updates_per_second():.2f} updates/s{mark}",
            highlight=False,
        )

    def on_train_end(self, logs: dict | None = None) -> None:
        self.close()

    def updates_per_second(self) -> float:
        """Returns the speed since this process began to train."""
        start, first = self._started
        return (self.progress.update - first) / max(time.monotonic() - start, 1e-9)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def metrics_table(metrics: dict[str, Any], title: str) -> Table:
    """Returns a table of a run's metrics.json: one column for each split."""
    splits = {name: metrics[name] for name in ("validation", "test") if name in metrics}
    names = dict.fromkeys(name for values in splits.values() for name in values)
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.min_width = len(title)
    table.add_column("")
    for split in splits:
        table.add_column(split, justify="right")
    for name in names:
        cells = [values.get(name) for values in splits.values()]
        if not any(isinstance(cell, dict) for cell in cells):
            table.add_row(name, *("" if cell is None else f"{cell:.4g}" for cell in cells))
    return table


def training_line(metrics: dict[str, Any]) -> str:
    """Returns one line on how a run of metrics.json was trained."""
    best = metrics["best"]
    return (
        f"{metrics['updates']} updates in {metrics['training_seconds']:.0f} s "
        f"({metrics['updates_per_second']:.2f}/s); best weights of round {best['round']}, "
        f"{best['metric']} {best['value']:.4g}"
    )
