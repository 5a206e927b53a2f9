"""The picture of a run: loss, metrics and learning rate over updates."""

from pathlib import Path
from typing import Any

from zoo.training.checkpoint import Progress

__all__ = ["draw_curves"]

_TRAIN, _VALIDATION, _RATE, _INK = "#3b6ea8", "#d1603d", "#4f8a5b", "#333333"
_FACTS = {"round", "epoch", "update", "learning_rate", "seconds"}


def draw_curves(progress: Progress, path: Path, title: str) -> None:
    """Writes a PNG with one panel for the loss, one for each metric, one for the learning rate."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = progress.history
    metrics = sorted(
        {name.removeprefix("val_") for row in rows for name in row} - _FACTS - {"loss"}
    )
    metrics = [name for name in metrics if not name.endswith("_loss")][:3]
    panels = ["loss", *metrics, "learning_rate"]
    figure = Figure(figsize=(4.6 * len(panels), 3.7), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, name in zip(axes, panels, strict=True):
        _frame(axis, name)
        axis.set_xlim(0, max([row["update"] for row in rows], default=1) * 1.02)
        if name == "learning_rate":
            _line(axis, progress.trace, 2, _RATE, None)
            axis.yaxis.set_major_formatter("{x:.3g}")
            axis.set_ylim(bottom=0)
            continue
        if name == "loss":
            _line(axis, progress.trace, 1, _TRAIN, None, alpha=0.3, width=1.0)
        _rounds(axis, rows, name, _TRAIN, "training")
        _rounds(axis, rows, f"val_{name}", _VALIDATION, "validation")
        _mark_best(axis, progress, name)
        axis.legend(frameon=False, fontsize=8)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=_INK)
    figure.savefig(path, format="png")


def _frame(axis: Any, name: str) -> None:
    axis.set_title(name.replace("_", " "), fontsize=10, color=_INK, loc="left")
    axis.set_xlabel("update", fontsize=8, color=_INK)
    axis.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=8, colors=_INK, length=0)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color("#bbbbbb")


def _line(
    axis: Any,
    rows: list[list[float]],
    column: int,
    color: str,
    label: str | None,
    alpha: float = 1.0,
    width: float = 1.8,
) -> None:
    points = [(row[0], row[column]) for row in rows]
    if points:
        axis.plot(*zip(*points, strict=True), color=color, label=label, alpha=alpha, lw=width)


def _rounds(axis: Any, rows: list[dict[str, Any]], name: str, color: str, label: str) -> None:
    points = [(row["update"], row[name]) for row in rows if name in row]
    if points:
        marker = "o" if len(points) <= 30 else None
        axis.plot(
            *zip(*points, strict=True), color=color, label=label, marker=marker, ms=3.5, lw=1.8
        )


def _mark_best(axis: Any, progress: Progress, name: str) -> None:
    best = progress.best
    if best is None or best["metric"] not in (name, f"val_{name}"):
        return
    update = progress.history[best["round"] - 1]["update"]
    axis.plot([update], [best["value"]], "o", ms=9, mfc="none", mec=_INK, mew=1.2, label="best")
    axis.annotate(
        f"{best['value']:.4g}",
        (update, best["value"]),
        textcoords="offset points",
        xytext=(0, 9),
        ha="center",
        fontsize=8,
        color=_INK,
    )
