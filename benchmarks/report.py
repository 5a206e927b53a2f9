"""How a benchmark reports: a table for people, then one JSON object as the last line."""

import json
import os
import platform
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8").splitlines()
        models = [line for line in lines if line.startswith("model name")]
        name = models[0].split(":", 1)[1].strip() if models else name
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"cpu": name, "cores": len(os.sched_getaffinity(0)), "load": load}


def report(title: str, rows: list[dict[str, Any]]) -> None:
    """Prints `rows` as a table, then everything as one line of JSON."""
    console = Console(width=110)
    table = Table(title=title)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*(_text(row.get(column)) for column in columns))
    console.print(table)
    print(json.dumps({"benchmark": title, "machine": machine(), "rows": rows}), flush=True)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
