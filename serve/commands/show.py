"""Tables for people: what the commands print unless JSON is asked for."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from serve.bundle.inspect import fold_layers


def show_bundle(facts: dict[str, Any]) -> None:
    """Print the facts of `serve.bundle.inspect.describe`."""
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
        "verification": _verification(facts["verification"]),
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
        console.print(f"  {graph['nodes']} nodes: {operators}", markup=False)
    console.print()
    _show_weights(console, facts["weights"])
    console.print()
    for name, size in facts["files"].items():
        console.print(f"{_bytes(size):>10}  {name}", markup=False)


def _show_weights(console: Console, weights: dict[str, Any]) -> None:
    """What the weights take, by kind and, where there are several, by type."""
    table = Table("weights", box=None, padding=(0, 2, 0, 0), header_style="")
    for column in ("parameters", "size", "share"):
        table.add_column(column, justify="right", header_style="")
    table.add_column("types", header_style="")
    total = sum(row["bytes"] for row in weights["kinds"].values())
    for name, row in weights["kinds"].items():
        types = sorted(row["dtypes"].items(), key=lambda item: -item[1])
        lone = len(types) == 1
        said = ", ".join(kind if lone else f"{kind} {_bytes(size)}" for kind, size in types)
        share = f"{row['bytes'] / max(1, total):.1%}"
        table.add_row(name, f"{row['parameters']:,}", _bytes(row["bytes"]), share, said)
    console.print(table, markup=False)
    if len(weights["dtypes"]) > 1:
        by_type = (f"{name} {_bytes(row['bytes'])}" for name, row in weights["dtypes"].items())
        console.print(f"by type  {', '.join(by_type)}", markup=False)


def show_difference(found: dict[str, Any]) -> None:
    """Print what `serve.bundle.difference.compare` found."""
    console = Console(soft_wrap=True, highlight=False)
    tensors = found["tensors"]
    apart = any(found[key] for key in ("facts", "files", "operators", "interfaces"))
    if not apart:
        console.print(f"the same: {tensors['equal']} tensors, every file and fact")
        return
    for key, pair in found["facts"].items():
        console.print(f"{key}: {_side(pair[0])} -> {_side(pair[1])}", markup=False)
    table = Table("", box=None, padding=(0, 2, 0, 0), header_style="")
    for column in ("first", "second", "second / first"):
        table.add_column(column, justify="right", header_style="")
    for key, (first, second) in found["sizes"].items():
        ratio = f"{second / first:.3g}" if first and second is not None else ""
        table.add_row(key, *(_amount(key, side) for side in (first, second)), ratio)
    console.print()
    console.print(table, markup=False)
    for title in ("operators", "interfaces"):
        for graph, rows in found[title].items():
            console.print(f"\n{title} of {graph} that differ", markup=False)
            for key, (first, second) in rows.items():
                console.print(f"  {key}: {_side(first)} -> {_side(second)}", markup=False)
    _show_tensors(console, tensors)
    if found["files"]:
        console.print("\nfiles that differ")
    for name, pair in found["files"].items():
        sides = " -> ".join("missing" if side is None else _bytes(side) for side in pair)
        console.print(f"  {name}: {sides}", markup=False)


def _show_tensors(console: Console, tensors: dict[str, Any]) -> None:
    console.print(f"\n{tensors['equal']} tensors are equal")
    for key, title in (("first_only", "only in the first"), ("second_only", "only in the second")):
        if tensors[key]:
            console.print(f"\ntensors {title}: {len(tensors[key])}")
            for line in _some([f"{name} {said}" for name, said in tensors[key].items()]):
                console.print(f"  {line}", markup=False)
    if tensors["changed"]:
        console.print(f"\ntensors of another type or shape: {len(tensors['changed'])}")
        for line in _some([f"{n}: {a} -> {b}" for n, (a, b) in tensors["changed"].items()]):
            console.print(f"  {line}", markup=False)
    if tensors["values"]:
        console.print(f"\ntensors with other values: {len(tensors['values'])}")
        lines = [
            f"{name}: bytes differ"
            if gap is None
            else f"{name}: by at most {gap['largest']:.3g}, {gap['share']:.1%} of its numbers"
            for name, gap in tensors["values"].items()
        ]
        for line in _some(lines):
            console.print(f"  {line}", markup=False)


def _some(lines: list[str], most: int = 24) -> list[str]:
    rest = len(lines) - most
    return [*lines[:most], f"... and {rest} more (--json lists all)"] if rest > 0 else lines


def _side(value: Any) -> str:
    return "-" if value is None else f"{value}"


def _amount(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if key == "verification.largest":
        return f"{value:.3g}"
    return f"{value:,}" if key == "parameters" else _bytes(value)


def show_report(name: str, report: dict[str, Any]) -> None:
    """Print the report of `serve.bundle.selfcheck.replay`."""
    console = Console(highlight=False)
    if report["cases"]:
        table = Table("case", "graph", "output", _measure(report))
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
            f"{_measure(report)} {report['largest']:.3g}, allowed {report['tolerance']:g}, "
            f"in {report['seconds']:.1f} s"
        )
    else:
        console.print("the bundle carries no reference values to replay")


def _measure(report: dict[str, Any]) -> str:
    """What the report's figures are."""
    relative = report.get("measure") == "relative"
    return "difference as a share" if relative else "largest difference"


def _bytes(size: int) -> str:
    amount = float(size)
    for unit in ("B", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.2f} GB"


def _verification(report: dict[str, Any]) -> str:
    """The largest difference; `verify` shows the cases."""
    rest = {k: v for k, v in report.items() if k not in ("cases", "largest", "tolerance")}
    if "largest" not in report:
        return _short(rest)
    said = f"{_measure(report)} from Keras {report['largest']:.2g}, allowed {report['tolerance']:g}"
    rest = {key: value for key, value in rest.items() if value and value is not True}
    return f"{said}, {_short(rest)}" if rest else said


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
