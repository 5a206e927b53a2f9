"""`write_report`: an HTML page about a bundle, and the same as data."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from export.models import prepared
from export.report.differences import layer_differences
from export.report.findings import Findings, environment
from export.report.latency import Shape, profile, shapes_of
from export.report.page import page
from export.staging import staged
from serve.bundle.inspect import describe
from serve.bundle.manifest import PREFILL, Manifest
from serve.bundle.weights import read_graphs
from zoo.backbones.config import config_to_mapping
from zoo.tasks import TaskModel
from zoo.text.json_file import write_json

PAGE, DATA = "index.html", "report.json"


def write_report(
    model: Any,
    bundle: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    shapes: Sequence[Shape] | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Writes a page about a bundle: size by kind of weight, speed by operator and block, difference
    from Keras by layer.

    Args:
        model: The `zoo.TaskModel` that the bundle was exported from.
        bundle: The bundle.
        out: The folder to make; it holds `index.html`, which needs no other file and no network,
            and `report.json`, the same as data.
        shapes: What to measure the speed of; by default a few that fit the task.
        overwrite: Replace `out` where it exists.
        progress: Called with what is being done.

    Returns:
        The page's path.

    Raises:
        ExportError: `out` exists or cannot be written, or `model` is no task model.
        ServeError: The bundle is not whole.
    """
    say = progress or (lambda text: None)
    model = prepared(model)
    manifest = Manifest.load(Path(bundle), check="size")
    with staged(out, overwrite) as folder:
        say("reading the bundle")
        facts, graphs = describe(manifest), read_graphs(manifest)
        say("comparing layers with Keras")
        differences = {"": layer_differences(model, manifest)}
        if PREFILL in manifest.graphs:
            step = differences.pop("")
            differences = {
                PREFILL: layer_differences(model, manifest, [PREFILL]),
                "model": step,
            }
        say("measuring speed")
        longest = min(model.config.max_length, getattr(model.config, "max_target_length", 1 << 30))
        if shapes is None:
            shapes = shapes_of(manifest, longest)
        profiles = profile(manifest, list(shapes), model.config.vocab_size)
        found = Findings(facts, graphs, _facts(model), profiles, differences, environment())
        say("drawing")
        (folder / PAGE).write_text(page(found), encoding="utf-8")
        write_json(folder / DATA, found.as_data())
    return Path(out) / PAGE


def _facts(model: TaskModel) -> dict[str, Any]:
    """The config's facts that are not their defaults."""
    config: Any = model.config
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(config)
        if field.default is not dataclasses.MISSING
    }
    facts = config_to_mapping(config)
    return {k: v for k, v in facts.items() if k not in defaults or v != defaults[k]}
