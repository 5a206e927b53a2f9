"""The report as one HTML file that needs nothing else: pictures, tables and styles lie in it."""

import html
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from export.report import pictures
from export.report.differences import along_blocks
from export.report.findings import Findings
from export.report.latency import Profile
from export.report.pictures import milliseconds_text, size_text
from export.report.scopes import scope_of_node
from serve.bundle.graph_file import GraphFile
from serve.bundle.inspect import fold_layers

STYLE = Path(__file__).with_name("style.css")


def page(found: Findings) -> str:
    """The report's HTML."""
    facts = found.facts
    sections = [
        _head(found),
        _size(found),
        *_speed(found),
        _differences(found),
        _verification(facts["verification"]),
        _graphs(found),
        _model(found),
        _environment(found),
    ]
    title = _text(f"{facts['name']}: export report")
    style = STYLE.read_text(encoding="utf-8")
    body = "\n".join(section for section in sections if section)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}\n"
        f"</main>\n</body>\n</html>\n"
    )


# --- sections -------------------------------------------------------------------------------------


def _head(found: Findings) -> str:
    facts, report = found.facts, found.facts["verification"]
    target = f"{facts['target']}, opset {facts['opset']}"
    line = f"{facts['task']} · {facts['architecture']} · {facts['precision']} · {target}"
    tiles = [
        (_count(facts["parameters"]), "parameters"),
        (size_text(facts["bytes"]), "bundle, all files"),
    ]
    if found.profiles:
        best = max(found.profiles, key=lambda p: p.shape.tokens / p.milliseconds)
        speed = 1e3 * best.shape.tokens / best.milliseconds
        tiles.append((_count(speed), f"tokens a second at {best.shape.label}"))
    if "largest" in report:
        kind = "relative" if report.get("measure") == "relative" else "largest"
        allowed = f"{kind} difference from Keras, allowed {report['tolerance']:g}"
        tiles.append((f"{report['largest']:.1e}", allowed))
    else:
        tiles.append(("–", "exported without verification"))
    nodes = sum(graph["nodes"] for graph in facts["graphs"].values())
    tiles.append((f"{nodes:,}", "nodes in the exported graphs"))
    cells = "".join(f'<div class="tile"><b>{_text(v)}</b><span>{_text(n)}</span></div>'
                    for v, n in tiles)  # fmt: skip
    return (
        f"<h1>{_text(facts['name'])}</h1>\n<p class='lead'>{_text(line)}</p>\n"
        f'<div class="tiles">{cells}</div>'
    )


def _size(found: Findings) -> str:
    facts = found.facts
    kinds = facts["weights"]["kinds"]
    total = sum(row["bytes"] for row in kinds.values())
    rows = [
        [name, f"{row['parameters']:,}", size_text(row["bytes"]), f"{row['bytes'] / total:.1%}",
         ", ".join(sorted(row["dtypes"], key=lambda t: -row["dtypes"][t]))]
        for name, row in kinds.items()
    ]  # fmt: skip
    float32 = 4 * facts["parameters"]
    said = f"The weights take {size_text(total)}"
    if facts["precision"] != "float32" and total:
        said += f", {float32 / total:.2g} times less than in float32"
    return "\n".join(
        [
            "<h2>Size</h2>",
            f"<p>{said}; each counts once, whichever graphs use it.</p>",
            _figure(pictures.sizes(kinds), "Bytes by what the weights are for, and their types."),
            _table(["weights", "parameters", "size", "share", "types"], rows, numbers=(1, 2, 3)),
        ]
    )


def _speed(found: Findings) -> list[str]:
    if not found.profiles:
        return []
    rows = [
        [p.shape.graph, p.shape.label, milliseconds_text(p.milliseconds), milliseconds_text(p.best),
         f"{1e3 * p.shape.tokens / p.milliseconds:,.0f}", f"{p.nodes:,}", f"{p.runs}"]
        for p in found.profiles
    ]  # fmt: skip
    names = [
        "graph",
        "rows × new tokens",
        "milliseconds",
        "best",
        "tokens a second",
        "nodes run",
        "runs",
    ]
    parts = [
        "<h2>Speed</h2>",
        "<p>Medians of runs under ONNX Runtime's own profiler, on the CPU, with the settings that "
        "<code>serve</code> uses. Nodes run are those left after the runtime's fusions; their "
        "medians add up to less than a run where the machine had other work.</p>",
        _table(names, rows, numbers=(2, 3, 4, 5, 6)),
    ]
    for graph, group in groupby(found.profiles, key=lambda p: p.shape.graph):
        profiles = list(group)
        parts.append(f"<h3>{_text(graph)}: by operator</h3>")
        parts.append(
            _figure(
                pictures.operators(profiles),
                "Milliseconds of a run by operator; each panel is one shape, to its own scale.",
            )
        )
        widest = max(profiles, key=lambda p: p.shape.tokens)
        if any(widest.blocks):
            caption = (
                f"Milliseconds of a run by block, at {widest.shape.label}; in: the embeddings, "
            )
            caption += "out: the head and what else lies outside of the blocks."
            parts.append(f"<h3>{_text(graph)}: by block</h3>")
            parts.append(_figure(pictures.blocks(widest), caption))
        parts.append(_top_nodes(widest))
    return ["\n".join(parts)]


def _top_nodes(profile: Profile) -> str:
    whole = sum(spent for spent, _ in profile.operators.values()) or 1.0
    rows = [
        [
            f"<code>{_text(name)}</code>",
            f"{calls:,.0f}",
            milliseconds_text(spent),
            f"{spent / whole:.1%}",
        ]
        for name, (spent, calls) in list(profile.operators.items())[:8]
    ]
    names = ["operator", "calls a run", "milliseconds", "share"]
    return _table(names, rows, numbers=(1, 2, 3), raw=(0,))


def _differences(found: Findings) -> str:
    sets = {name: rows for name, rows in found.differences.items() if rows}
    if not sets:
        return ""
    count = max(sum("/" in row.path for row in rows) for rows in sets.values())
    parts = [
        "<h2>Difference from Keras, layer by layer</h2>",
        "<p>The model and the graphs compute texts that were not traced, of several lengths; each "
        f"graph gives out what its layers compute ({count} calls of linear maps and norms that the "
        "graph still has as such). Differences of earlier layers are carried on, as in use.</p>",
    ]
    lines = {
        " ".join(filter(None, (name, side if len(sides) > 1 or not name else ""))): line
        for name, rows in sets.items()
        for sides in [along_blocks(rows)]
        for side, line in sides.items()
    }
    if any(len(line) > 1 for line in lines.values()):
        caption = "The residual stream behind each block, as the norm there leaves it."
        parts.append(_figure(pictures.stream(lines), caption))
    for name, rows in sets.items():
        if any("/block_" in row.path for row in rows):
            caption = f"{name}: relative" if name else "Relative"
            caption += " difference of each layer (rows) in each block (columns); a dash: the "
            caption += "graph has no such tensor, as it was fused with what is behind it."
            parts.append(_figure(pictures.layers(rows), caption))
    parts.append("<h3>Outputs, and the layers that differ most</h3>")
    cells = []
    for name, rows in sets.items():
        outputs = [row for row in rows if "/" not in row.path]
        worst = sorted((r for r in rows if "/" in r.path), key=lambda row: -row.relative)
        cells += [
            [
                *([name] if len(sets) > 1 else []),
                f"<code>{_text(r.path)}</code>",
                f"{r.largest:.2e}",
                f"{r.relative:.2e}",
            ]
            for r in (*outputs, *worst[:8])
        ]
    names = ["layer", "largest difference", "relative"]
    if len(sets) > 1:
        parts.append(_table(["graph", *names], cells, numbers=(2, 3), raw=(1,)))
    else:
        parts.append(_table(names, cells, numbers=(1, 2), raw=(0,)))
    return "\n".join(parts)


def _verification(report: Mapping[str, Any]) -> str:
    rows = []
    for case, graphs in report.get("cases", {}).items():
        for graph, outputs in graphs.items():
            for output, gap in outputs.items():
                mark = "good" if gap <= report["tolerance"] else "bad"
                value = f'<span class="{mark}">{gap:.2e}</span>'
                rows.append([_text(case), _text(graph), _text(output), value])
    if not rows:
        return "<h2>Verification</h2>\n<p>The bundle was exported without verification.</p>"
    texts = report.get("tokenizer_texts")
    measure = "relative difference" if report.get("measure") == "relative" else "difference"
    said = "Replayed through <code>serve</code> before the bundle appeared; the largest "
    said += f"{measure} allowed is {report['tolerance']:g}."
    if texts:
        said += f" The tokenizer gives the reference's ids for {texts} texts in many scripts."
    names = ["case", "graph", "output", measure]
    parts = ["<h2>Verification</h2>", f"<p>{said}</p>", _table(names, rows, (3,), (0, 1, 2, 3))]
    told = ("cases", "tolerance", "largest", "tokenizer_texts", "has_reference", "measure")
    rest = {key: value for key, value in report.items() if key not in told}
    if rest:
        parts.append(_facts(_flat(rest)))
    return "\n".join(parts)


def _graphs(found: Findings) -> str:
    parts = ["<h2>Graphs</h2>"]
    for name, graph in found.facts["graphs"].items():
        parts.append(f"<h3>{_text(name)}: {graph['nodes']:,} nodes</h3>")
        rows = [
            [side[:-1], f"<code>{_text(line)}</code>"]
            for side in ("inputs", "outputs")
            for line in fold_layers(graph[side])
        ]
        parts.append(_table(["", "tensor"], rows, raw=(1,)))
        parts.append(_table(["part of the graph", "nodes", "operators"],
                            _operators_by_block(found.graphs[name]), numbers=(1,)))  # fmt: skip
    return "\n".join(parts)


def _operators_by_block(graph: GraphFile) -> list[list[str]]:
    """Rows of (blocks, nodes of each, operators of each); blocks that are alike share one."""
    counts: dict[str, Counter[str]] = {}
    for node in graph.nodes:
        outputs = [name for name in node.outputs if name]
        scope = scope_of_node(node.name, outputs, list(node.inputs))
        counts.setdefault(scope.block or scope.section, Counter())[node.operator] += 1
    inside = sorted((b for b in counts if "/" in b), key=_order)
    outside = [name for name in counts if "/" not in name]
    rows = []
    for (side, operators), group in groupby(
        inside, key=lambda b: (b.split("/")[0], sorted(counts[b].items()))
    ):
        numbers = [name.rpartition("_")[2] for name in group]
        span = numbers[0] if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
        many = "each of " if len(numbers) > 1 else ""
        rows.append(_operator_row(f"{many}{side} blocks {span}" if many
                                  else f"{side} block {span}", dict(operators)))  # fmt: skip
    rows += [_operator_row(f"outside: {name}", counts[name]) for name in outside]
    return rows


def _operator_row(name: str, operators: Mapping[str, int]) -> list[str]:
    ranked = sorted(operators.items(), key=lambda item: (-item[1], item[0]))
    said = ", ".join(f"{op} {count}" if count > 1 else op for op, count in ranked)
    return [name, f"{sum(operators.values()):,}", said]


def _order(block: str) -> tuple[bool, int]:
    side, _, number = block.partition("/block_")
    return side == "decoder", int(number)


def _model(found: Findings) -> str:
    facts = found.facts
    about: dict[str, Any] = {key: facts[key] for key in ("task", "labels", "pooling", "normalize")}
    for key in ("quantization", "tokenizer", "cache", "generation", "source"):
        about |= _flat({key: facts[key]}) if facts[key] else {}
    parts = ["<h2>Model</h2>", _facts(about)]
    if found.config:
        parts += ["<h3>Facts of the architecture</h3>", _facts(found.config)]
    return "\n".join(parts)


def _environment(found: Findings) -> str:
    facts = {**found.environment, **_flat({"created with": found.facts["created_with"]})}
    files = [
        [f"<code>{_text(n)}</code>", size_text(size)] for n, size in found.facts["files"].items()
    ]
    return "\n".join(
        [
            "<h2>Environment</h2>",
            _facts(facts),
            "<h3>Files</h3>",
            _table(["file", "size"], files, numbers=(1,), raw=(0,)),
            "<footer>Written by keras-text-zoo. Speeds are those of the machine named above, which "
            "may have done other work too; all other figures are those of the bundle.</footer>",
        ]
    )


# --- parts ----------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    return html.escape(str(value))


def _figure(svg: str, caption: str) -> str:
    return f"<figure>\n{svg}\n<figcaption>{_text(caption)}</figcaption>\n</figure>"


def _table(
    names: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Sequence[int] = (),
    raw: Sequence[int] = (),
) -> str:
    """A table; `raw` columns are HTML already."""

    def cell(tag: str, at: int, value: str, escape: bool) -> str:
        kind = ' class="number"' if at in numbers else ""
        return f"<{tag}{kind}>{_text(value) if escape else value}</{tag}>"

    head = "".join(cell("th", at, name, True) for at, name in enumerate(names))
    lines = "\n".join(
        "<tr>" + "".join(cell("td", at, v, at not in raw) for at, v in enumerate(row)) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n'
        "</tbody></table></div>"
    )


def _facts(facts: Mapping[str, Any]) -> str:
    rows = "\n".join(
        f"<dt>{_text(key)}</dt><dd>{_text(_said(value))}</dd>"
        for key, value in facts.items()
        if value is not None and value not in ([], {}, "")
    )
    return f"<dl>\n{rows}\n</dl>"


def _said(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        shown = ", ".join(_said(item) for item in value[:40])
        return f"{shown}, ... {len(value)} in all" if len(value) > 40 else shown
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)


def _flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and len(prefix) < 60:
            flat |= _flat(value, f"{name} · ")
        else:
            flat[name] = value
    return flat


def _count(number: float) -> str:
    for unit, name in ((1e9, " B"), (1e6, " M")):
        if number >= unit:
            return f"{number / unit:,.3g}{name}"
    return f"{number:,.0f}"
