"""Where a graph's time goes, from ONNX Runtime's own profile: by operator, by block, by section."""

import bisect
import json
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from export.graphs import BATCH, ENCODER_SEQUENCE, PAST, SEQUENCE, TOTAL
from export.report.scopes import Scope, scope_of_node
from serve.bundle.manifest import GraphSpec, Manifest
from serve.errors import BundleError
from serve.runtime.session import Session, SessionOptions

WARM, LEAST, MOST, SECONDS = 1, 4, 40, 0.8
"""Runs that do not count; then how many at least, at most, and for about how many seconds."""


@dataclass(frozen=True)
class Shape:
    """One way to call a graph.

    Attributes:
        graph: The graph's name.
        batch: Rows.
        length: New positions of each.
        past: Positions that are in the cache already.
        memory: Positions of the encoder's text, for a decoder that reads one.
    """

    graph: str
    batch: int
    length: int
    past: int = 0
    memory: int = 0

    @property
    def label(self) -> str:
        """Such as "8 × 128"."""
        text = f"{self.batch} × {self.length}"
        return f"{text} after {self.past}" if self.past else text

    @property
    def tokens(self) -> int:
        """New positions in all."""
        return self.batch * self.length


@dataclass
class Profile:
    """What one shape took.

    Attributes:
        shape: The shape.
        runs: How many runs counted.
        milliseconds: Median of a whole run.
        best: The fastest run.
        operators: {operator: [milliseconds, calls]} of a run.
        blocks: {block: {section: milliseconds}} of a run; "" stands for what lies outside of them.
        nodes: Nodes that ran, after ONNX Runtime's own fusions.
    """

    shape: Shape
    runs: int
    milliseconds: float
    best: float
    operators: dict[str, list[float]] = field(default_factory=dict)
    blocks: dict[str, dict[str, float]] = field(default_factory=dict)
    nodes: int = 0


def shapes_of(manifest: Manifest, longest: int) -> list[Shape]:
    """The shapes that a bundle is measured with, no text longer than `longest`."""
    long, short = min(128, longest // 2 or 1), min(16, longest)
    shapes = []
    for name, graph in manifest.graphs.items():
        inputs = {tensor.name for tensor in graph.inputs}
        if not any(key.startswith("past_key_values.") for key in inputs):
            shapes += [Shape(name, 1, short), Shape(name, 1, long), Shape(name, 8, long)]
            continue
        memory = long if "encoder_attention_mask" in inputs else 0
        if memory:
            shapes += [Shape(name, 1, 1, short, memory), Shape(name, 8, 1, short, memory)]
            continue
        shapes.append(Shape(name, 1, long))
        if name == "prefill":
            shapes.append(Shape(name, 4, long))
        else:
            shapes += [Shape(name, 1, 1, long), Shape(name, 8, 1, long)]
    return shapes


def profile(
    manifest: Manifest, shapes: list[Shape], vocab_size: int, options: SessionOptions | None = None
) -> list[Profile]:
    """Runs each shape under ONNX Runtime's profiler.

    Args:
        manifest: The bundle.
        shapes: What to run.
        vocab_size: Ids are drawn below it.
        options: How the graphs are run; by default as `serve` does.
    """
    found = []
    with tempfile.TemporaryDirectory(prefix="zoo-profile-") as name:
        for at, shape in enumerate(shapes):
            spec = manifest.graphs[shape.graph]
            feeds = _feeds(manifest, spec, shape, vocab_size)
            path = manifest.path(spec.file)
            prefix = Path(name) / f"{at}"
            found.append(_profile(path, shape, feeds, prefix, options or SessionOptions()))
    return found


def _feeds(
    manifest: Manifest, spec: GraphSpec, shape: Shape, vocab_size: int
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    total = shape.past + shape.length
    buffer = manifest.cache is not None and manifest.cache.layout == "buffer"
    sizes = {
        BATCH: shape.batch,
        SEQUENCE: shape.length,
        TOTAL: total,
        PAST: total if buffer else shape.past,  # a buffer has room for what is to come
        ENCODER_SEQUENCE: shape.memory,
    }
    feeds: dict[str, np.ndarray] = {}
    for tensor in spec.inputs:
        if tensor.name in spec.optional_inputs:
            continue
        dims = [
            axis if isinstance(axis, int) else sizes.get(str(axis), shape.length)
            for axis in tensor.shape
        ]
        if tensor.name.endswith("mask"):
            feeds[tensor.name] = np.ones(dims, tensor.dtype)
        elif tensor.name.endswith("input_ids"):
            feeds[tensor.name] = rng.integers(0, vocab_size, dims)
        elif tensor.dtype.startswith("int"):
            feeds[tensor.name] = np.zeros(dims, tensor.dtype)
        else:
            feeds[tensor.name] = (0.1 * rng.standard_normal(dims)).astype(tensor.dtype)
    return feeds


def _profile(
    path: Path, shape: Shape, feeds: dict[str, Any], prefix: Path, options: SessionOptions
) -> Profile:
    optimized = prefix.with_suffix(".onnx")
    options = replace(options, profile=str(prefix))
    try:
        session = Session(path, replace(options, rewritten=str(optimized)))
    except BundleError:  # a graph whose folded weights do not fit one file
        session = Session(path, options)
    runtime = session.runtime
    scopes = _scopes(optimized) if optimized.is_file() else {}
    runs, ends = 0, 0.0
    while runs < WARM + LEAST or (runs < WARM + MOST and time.perf_counter() < ends):
        runtime.run(None, feeds)
        runs += 1
        if runs == WARM:
            ends = time.perf_counter() + SECONDS
    events = json.loads(Path(runtime.end_profiling()).read_text(encoding="utf-8"))
    return _summed(shape, events, scopes)


def _scopes(path: Path) -> dict[str, Scope]:
    """The scope of each node of an optimised graph."""
    proto = onnx.load(path, load_external_data=False)
    nodes = {}
    for node in proto.graph.node:
        outputs = [name for name in node.output if name]
        nodes[node.name] = scope_of_node(node.name, outputs, list(node.input))
    return nodes


def _summed(shape: Shape, events: list[dict[str, Any]], scopes: dict[str, Scope]) -> Profile:
    """Sums a profile's events by median over the runs that count, node by node.

    On a machine that does other work too, means would speak of that.
    """
    whole = sorted(
        (event for event in events if event.get("name") == "model_run"), key=lambda e: e["ts"]
    )[WARM:]
    begins = [event["ts"] for event in whole]
    spent: dict[str, list[float]] = defaultdict(lambda: [0.0] * len(whole))
    operators_of: dict[str, str] = {}
    calls: Counter[str] = Counter()
    for event in events:
        name = event.get("name", "")
        run = bisect.bisect_right(begins, event["ts"]) - 1
        if event.get("cat") != "Node" or not name.endswith("_kernel_time") or run < 0:
            continue
        node = name.removesuffix("_kernel_time")
        spent[node][run] += event["dur"] / 1e3
        operators_of[node] = event["args"]["op_name"]
        calls[node] += 1
    operators: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    blocks: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for node, by_run in spent.items():
        middle = statistics.median(by_run)
        row = operators[operators_of[node]]
        row[0] += middle
        row[1] += calls[node] / len(whole)
        scope = scopes.get(node) or scope_of_node(node, [], [])
        blocks[scope.block or ""][scope.section] += middle
    durations = [event["dur"] / 1e3 for event in whole]
    return Profile(
        shape,
        runs=len(whole),
        milliseconds=statistics.median(durations),
        best=min(durations),
        operators=dict(sorted(operators.items(), key=lambda item: -item[1][0])),
        blocks={block: dict(sections) for block, sections in blocks.items()},
        nodes=len(spent),
    )
