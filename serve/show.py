"""Tables for people: what the commands print unless JSON is asked for."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from serve.inspect import fold_layers


def show_bundle(facts: dict[str, Any]) -> None:
    """Print the facts of `serve.inspect.describe`."""
    console = Console(soft_wrap=True, highlight=False)
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    quantized = f", quantized {_short(facts['quantization'])}" if facts["quantization"] else ""
    rows = {
        "name": facts["name"],
        "task": f"{facts['task']} ({facts['architecture']})",
        "target": f"{facts['target']}, opset {facts['opset']}, {facts['precision']}{quantized}",
        "size": f"{_bytes(facts['bytes'])}, {facts['parameters']:,} parameters",
        "labels": _labels(facts["labels"]),
        "pooling": facts["pooling"],
        "tokenizer": _short(facts["tokenizer"]),
        "cache": _short(facts["cache"]),
        "generation": _short(facts["generation"]),
        "verification": _short(facts["verification"]),
        "source": _short(facts["source"]),
        "created with": _short(facts["created_with"]),
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, str(value))
    console.print(table, markup=False)
    for name, graph in facts["graphs"].items():
        console.print(f"\ngraph {name}: {graph['file']}, {graph['parameters']:,} parameters")
        for side in ("inputs", "outputs"):
            for line in fold_layers(graph[side]):
                console.print(f"  {side[:-1]:6}  {line}", markup=False)
        for line in graph["optional_inputs"]:
            console.print(f"  may set {line}", markup=False)
        operators = ", ".join(f"{name} {count}" for name, count in graph["operators"].items())
        console.print(f"  operators  {operators or 'not recorded'}", markup=False)
    console.print()
    for name, size in facts["files"].items():
        console.print(f"{_bytes(size):>10}  {name}", markup=False)


def show_report(name: str, report: dict[str, Any]) -> None:
    """Print the report of `serve.selfcheck.replay`."""
    console = Console(highlight=False)
    if report["cases"]:
        table = Table("case", "graph", "output", "largest difference")
        for case, graphs in report["cases"].items():
            for graph, outputs in graphs.items():
                for output, gap in outputs.items():
                    table.add_row(case, graph, output, f"{gap:.3g}")
        console.print(table)
    console.print(f"{name}: {report['files']} files whole and unchanged", markup=False)
    if report["tokenizer_texts"]:
        console.print(f"{report['tokenizer_texts']} texts give the reference's token ids")
    if report["has_reference"]:
        console.print(
            f"largest difference {report['largest']:.3g}, allowed {report['tolerance']:g}, "
            f"in {report['seconds']:.1f} s"
        )
    else:
        console.print("the bundle carries no reference values to replay")


def _bytes(size: int) -> str:
    amount = float(size)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.2f} GB"


def _labels(labels: list[str] | None) -> str:
    if not labels:
        return ""
    more = f", ... {len(labels)} in all" if len(labels) > 10 else ""
    return ", ".join(labels[:10]) + more


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {item if isinstance(item, str | int | float) else json.dumps(item)}"
            for key, item in value.items()
            if item is not None
        )
    return "" if value is None else str(value)
