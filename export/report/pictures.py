"""The pictures of a report, drawn with matplotlib as SVG that takes the page's colours and font."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.patches
import matplotlib.ticker
from matplotlib.figure import Figure

from export.report.differences import LayerDifference
from export.report.latency import Profile
from export.report.scopes import SECTIONS

INK, MUTED, LINE = "#010101", "#020202", "#030303"
SERIES = ("#0a0001", "#0a0002", "#0a0003", "#0a0004", "#0a0005", "#0a0006", "#0a0007")
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    LINE: "line",
    **{color: f"series-{i}" for i, color in enumerate(SERIES, 1)},
}
"""Colours that stand for the page's own, which are one set by day and another by night."""

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "keras-text-zoo",
    "font.family": "sans-serif",
    "font.size": 10.5,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "figure.facecolor": "none",
    "legend.frameon": False,
}
WIDTH = 9.2
"""Inches at 100 pixels."""


def _figure(height: float, columns: int = 1, share: bool = False) -> tuple[Figure, Any]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False, sharey=share)[0]
    return figure, axes


def _svg(figure: Figure, title: str) -> str:
    """The figure as an element of a page, `title` for those who do not see it."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    for color, name in _VARIABLES.items():
        text = text.replace(color, f"var(--{name})")
    text = re.sub(r"font: ([^;\"]*px) [^;\"]*", r"font-size: \1; font-family: inherit", text)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    head = f'<svg role="img" aria-label="{title}" class="picture" {box[0]}>'
    return re.sub(r"<svg [^>]*>", head, text, count=1)


def sizes(kinds: Mapping[str, Mapping[str, Any]]) -> str:
    """Bytes by kind of weight, each bar of its types."""
    with matplotlib.rc_context(_STYLE):
        types = list(dict.fromkeys(t for row in kinds.values() for t in row["dtypes"]))
        totals = {t: sum(row["dtypes"].get(t, 0) for row in kinds.values()) for t in types}
        whole = sum(totals.values())
        types = [t for t in sorted(types, key=lambda t: -totals[t]) if totals[t] >= 0.001 * whole]
        figure, (axis,) = _figure(0.7 + 0.36 * len(kinds))
        names = list(kinds)
        left: list[float] = [0.0] * len(names)
        for color, kind in zip(_cycle(len(types)), types, strict=True):
            widths = [row["dtypes"].get(kind, 0) for row in kinds.values()]
            axis.barh(names, widths, left=left, color=color, height=0.62, label=kind)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        most = max(left)
        for at, (row, end) in enumerate(zip(kinds.values(), left, strict=True)):
            said = f"{size_text(row['bytes'])} · {share_text(row['bytes'], whole)}"
            axis.text(end + most * 0.01, at, said, va="center")
        axis.set_xlim(0, most * 1.2)
        _bars(axis)
        axis.legend(loc="lower right", ncols=len(types))
        return _svg(figure, "Bytes by kind of weight")


def operators(profiles: Sequence[Profile], most: int = 12) -> str:
    """Milliseconds of the costliest operators, one panel for each shape."""
    with matplotlib.rc_context(_STYLE):
        weight: dict[str, float] = {}
        for profile in profiles:
            whole = sum(spent for spent, _ in profile.operators.values()) or 1.0
            for name, (value, _) in profile.operators.items():
                weight[name] = max(weight.get(name, 0.0), value / whole)
        ranked = sorted(weight, key=lambda name: -weight[name])
        names, rest = ranked[:most], set(ranked[most:])
        figure, axes = _figure(0.9 + 0.3 * (len(names) + bool(rest)), len(profiles), share=True)
        for color, axis, profile in zip(_cycle(len(profiles)), axes, profiles, strict=True):
            spent = [profile.operators.get(name, [0.0])[0] for name in names]
            labels = list(names)
            if rest:
                spent.append(sum(v for k, (v, _) in profile.operators.items() if k in rest))
                labels.append(f"{len(rest)} others")
            axis.barh(labels, spent, color=color, height=0.62)
            top = max(spent) or 1.0
            for at, value in enumerate(spent):
                if value > 0:
                    axis.text(value + top * 0.02, at, milliseconds_text(value), va="center")
            axis.set_xlim(0, top * 1.32)
            inside = sum(value for value, _ in profile.operators.values())
            title = f"{profile.shape.label}: {milliseconds_text(inside)} ms in all"
            axis.set_title(title, loc="left", fontsize=11)
            _bars(axis)
        return _svg(figure, "Milliseconds by operator and shape")


def blocks(profile: Profile) -> str:
    """Milliseconds of each block, by section, in the order of the graph."""
    with matplotlib.rc_context(_STYLE):
        names = sorted((name for name in profile.blocks if name), key=_place)
        rows: list[tuple[str, dict[str, float]]] = []
        outside = profile.blocks.get("", {})
        rows.append(("in", {k: v for k, v in outside.items() if k == "embeddings"}))
        several = len({name.split("/")[0] for name in names}) > 1
        for name in names:
            side, _, block = name.partition("/block_")
            rows.append((f"{side[:3]} {block}" if several else block, profile.blocks[name]))
        rest = {k: v for k, v in outside.items() if k != "embeddings"}
        rows.append(("out", rest))
        figure, (axis,) = _figure(2.9)
        bottom = [0.0] * len(rows)
        at = range(len(rows))
        for color, section in zip(SERIES, SECTIONS, strict=False):
            heights = [row.get(section, 0.0) for _, row in rows]
            if sum(heights) <= 0:
                continue
            axis.bar(at, heights, bottom=bottom, color=color, width=0.66, label=section)
            bottom = [a + b for a, b in zip(bottom, heights, strict=True)]
        axis.set_xticks(at, [name for name, _ in rows])
        axis.set_ylabel("milliseconds")
        axis.grid(axis="y")
        axis.spines["left"].set_visible(False)
        axis.margins(x=0.01, y=0.22)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14), ncols=len(SECTIONS))
        return _svg(figure, "Milliseconds by block")


def stream(points: Mapping[str, Sequence[tuple[str, LayerDifference]]]) -> str:
    """Largest and relative difference along the blocks, one line for each side."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _figure(2.9, 2)
        titles = ("largest absolute difference", "relative difference (root mean square)")
        for axis, title, field in zip(axes, titles, ("largest", "relative"), strict=True):
            for color, (side, rows) in zip(SERIES, points.items(), strict=False):
                values = [max(getattr(row, field), 1e-9) for _, row in rows]
                axis.plot(range(len(rows)), values, color=color, marker="o", markersize=4,
                          linewidth=1.8, label=side)  # fmt: skip
            longest = max(points.values(), key=len)
            step = max(1, math.ceil(len(longest) / 14))
            axis.set_xticks(range(0, len(longest), step), [name for name, _ in longest][::step])
            axis.set_yscale("log")
            met = [max(getattr(r, field), 1e-9) for rows in points.values() for _, r in rows]
            low, high = math.log10(min(met)), math.log10(max(met))
            axis.set_ylim(10 ** math.floor(low - 0.1), 10 ** math.ceil(high + 0.1))
            axis.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
            axis.grid(axis="y")
            axis.spines["left"].set_visible(False)
            axis.set_title(title, loc="left", fontsize=11)
            axis.set_xlabel("behind block")
            if len(points) > 1:
                axis.legend()
        return _svg(figure, "Difference from Keras along the blocks")


def layers(rows: Sequence[LayerDifference]) -> str:
    """Relative difference of each layer: a map of kinds of layer by blocks."""
    with matplotlib.rc_context(_STYLE):
        cells: dict[str, dict[str, float]] = {}
        names: dict[str, None] = {}
        several = len({r.path.split("/")[0] for r in rows if "/block_" in r.path}) > 1
        for row in rows:
            found = re.match(r"(encoder|decoder)/block_(\d+)/(.+)", row.path)
            if not found:
                continue
            name = found[2] if not row.call else f"{found[2]}·{row.call + 1}"
            column = f"{found[1][:3]} {name}" if several else name
            names.setdefault(found[3])
            old = cells.setdefault(column, {}).get(found[3], 0.0)
            cells[column][found[3]] = max(old, row.relative)
        grid = [
            [math.log10(max(column.get(name, math.nan), 1e-9)) for column in cells.values()]
            for name in names
        ]
        values = [v for row in grid for v in row if not math.isnan(v)]
        low, high = min(values), max(max(values), min(values) + 1e-3)
        figure, (axis,) = _figure(0.9 + 0.27 * len(names))
        for at, line in enumerate(grid):
            for x, value in enumerate(line):
                if math.isnan(value):
                    axis.plot(x, at, marker="_", color=MUTED, markersize=5)
                    continue
                strength = 0.06 + 0.94 * (value - low) / (high - low)
                axis.add_patch(matplotlib.patches.Rectangle(
                    (x - 0.47, at - 0.44), 0.94, 0.88, color=SERIES[0], alpha=strength,
                    linewidth=0))  # fmt: skip
        axis.set_xlim(-0.5, len(cells) - 0.5)
        axis.set_ylim(len(names) - 0.5, -0.5)
        step = max(1, math.ceil(len(cells) / 24))
        axis.set_xticks(range(0, len(cells), step), list(cells)[::step])
        axis.set_yticks(range(len(names)), list(names))
        for spine in axis.spines.values():
            spine.set_visible(False)
        axis.set_title(f"from {10**low:.1g} (light) to {10**high:.1g} (dark)", loc="left",
                       fontsize=10.5, color=MUTED)  # fmt: skip
        return _svg(figure, "Relative difference of each layer")


def _bars(axis: Any) -> None:
    axis.invert_yaxis() if not axis.yaxis_inverted() else None
    axis.set_xticks([])
    for side in ("bottom", "left"):
        axis.spines[side].set_visible(False)
    axis.tick_params(axis="y", colors=INK)


def _cycle(count: int) -> list[str]:
    return [SERIES[i % len(SERIES)] for i in range(count)]


def _place(block: str) -> tuple[bool, int]:
    side, _, number = block.partition("/block_")
    return side == "decoder", int(number)


def milliseconds_text(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def size_text(size: float) -> str:
    """Such as "1.5 MB"."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:,.3g} {name}"
    return f"{size:,.0f} B"


def share_text(part: float, whole: float) -> str:
    """Such as "12 %"; what rounds to nothing is "< 1 %"."""
    share = part / max(1, whole)
    return f"{share:.0%}" if share >= 0.005 or not part else "< 1%"
