"""The table of what parity found, for people, and its summary, for machines."""

from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

POINTS = ("embeddings", "first_layer", "output")
CACHED = ("cached_buffer", "cached_grow")
COLORS = {"ok": "green", "failed": "red", "refused": "yellow", "not supported yet": "dim"}


def worst(rows: list[dict[str, Any]], *names: str) -> float | None:
    """The largest difference under these names; NaN wins, None where nothing was measured."""
    found = [row[name] for row in rows for name in names if row.get(name) is not None]
    return float(f"{np.max(found):.3g}") if found else None


def share(rows: list[dict[str, Any]], name: str) -> str:
    """How many of the rows that were asked are good."""
    asked = [row[name] for row in rows if name in row]
    return f"{sum(asked)}/{len(asked)}" if asked else ""


def figure(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def state_of(rows: list[dict[str, Any]]) -> str:
    """A family's state: the worst of its cases'."""
    states = {row["state"] for row in rows}
    for state in ("failed", "ok", "refused"):
        if state in states:
            return state
    return "not supported yet"


def groups(rows: list[dict[str, Any]], by_case: bool) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        name = f"{row['family']}/{row['case']}" if by_case else row["family"]
        found.setdefault(name, []).append(row)
    return found


def print_table(rows: list[dict[str, Any]], by_case: bool) -> None:
    """A line for each family, or for each case; then every problem."""
    table = Table()
    for title in ("family", "cases", *POINTS, "cached", "greedy", "read back", "state"):
        table.add_column(title.replace("_", " "), no_wrap=True)
    for name, members in groups(rows, by_case).items():
        state = state_of(members)
        good = sum(row["state"] == "ok" for row in members)
        table.add_row(
            name,
            f"{good}/{len(members)}",
            *(figure(worst(members, point)) for point in POINTS),
            figure(worst(members, *CACHED)),
            share(members, "greedy"),
            share(members, "reloaded"),
            f"[{COLORS[state]}]{state}[/]",
        )
    console = Console(width=130)
    console.print(table)
    for row in rows:
        for problem in row["problems"]:
            console.print(f"{row['family']}/{row['case']}: {problem}", markup=False, soft_wrap=True)
        if by_case and "refusal" in row:
            console.print(f"{row['family']}/{row['case']}: {row['refusal']}", markup=False)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts by state, and each family's figures."""
    families = {
        name: {
            "state": state_of(members),
            "cases": len(members),
            **{point: worst(members, point) for point in POINTS},
            "cached": worst(members, *CACHED),
            "greedy": share(members, "greedy"),
            "read_back": share(members, "reloaded"),
        }
        for name, members in groups(rows, by_case=False).items()
    }
    counts = {state: sum(row["state"] == state for row in rows) for state in COLORS}
    return {"cases": len(rows), **counts, "families": families}
