"""`to_onnx`: a Keras model becomes a bundle that `serve` answers from, verified first."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx

from export.errors import ExportError
from export.facts import created_with, problem_type, tokenizer_spec
from export.generation_defaults import NEW_TOKENS, generation_config, generation_spec
from export.graphs import KEEP, Graph, onnx_graphs
from export.layouts import optimum
from export.layouts.genai import GENAI_FILE, genai_config
from export.layouts.optimum import Placed
from export.lowering import TARGETS
from export.models import prepared, tokenizer_of
from export.onnx import WEIGHTS_FILE, Converted, WeightsFile, convert, write_graph
from export.precision import Form
from export.quantization.budget import Budget, Trial
from export.quantization.rewriting import Ranges, quantized
from export.quantization.settings import Quantization
from export.reference import REFERENCE_FILE, reference_values, save_reference
from export.staging import staged
from export.verify import allowed, replay_bundle
from serve.bundle.integrity import FileSpec
from serve.bundle.manifest import (
    PREFILL,
    CacheSpec,
    GraphSpec,
    Manifest,
    TensorSpec,
)
from serve.pipelines.prompts import PROMPTS_FILE
from zoo.backbones.config import config_to_mapping
from zoo.layers.span import CacheLayout
from zoo.tasks import TaskModel
from zoo.text.json_file import write_json

CACHES: dict[str, CacheLayout] = {"onnxruntime": "buffer", "portable": "grow"}
OPSETS = range(17, 19)
LAYOUTS = ("bundle", "optimum")

Progress = Callable[[str], None]


def to_onnx(
    model: Any,
    out: str | os.PathLike[str],
    *,
    target: str = "onnxruntime",
    precision: str | Quantization = "float32",
    data: Sequence[dict[str, Any]] | None = None,
    budget: Budget | None = None,
    layout: str = "bundle",
    tokenizer: Any = None,
    name: str | None = None,
    opset: int = 18,
    max_new_tokens: int | None = None,
    hidden_states: bool = False,
    verify: bool = True,
    overwrite: bool = False,
    source: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Exports a model as a bundle: ONNX graphs, weights, tokenizer, manifest.

    Args:
        model: A `zoo.TaskModel`.
        out: The folder to make.
        target: "onnxruntime" (fused operators, caches in place) or "portable" (standard operators
            only).
        precision: One of `PRECISIONS`, or a `Quantization` for a choice in detail.
        data: Examples as in `zoo.data`: what "int8-static" is calibrated on, and what a budget is
            measured on.
        budget: How much a quantised bundle may lose; layers are left in float32 until it holds.
        layout: "bundle", or "optimum": the same with the files that Optimum and
            sentence-transformers look for; generating models then need target "portable".
        tokenizer: A `zoo.text.Tokenizer`; by default the model's own.
        name: The bundle's name; by default the folder's.
        opset: Version of ONNX' operators.
        max_new_tokens: Default length of what a generating bundle writes. None: what the
            checkpoint says of it, else 64.
        hidden_states: The graphs that write return `last_hidden_state` [B, S, D] too, the states
            that their head reads, which contrastive search compares.
        verify: Replay reference values through `serve` before the folder appears.
        overwrite: Replace `out` where it exists.
        source: Where the model came from, for the manifest.
        progress: Called with what is being done.

    Returns:
        The bundle's manifest.

    Raises:
        ExportError: The export cannot be made, its values are not those of Keras, or it loses more
            than the budget; `out` is then untouched.
    """
    if target not in TARGETS:
        raise ExportError(f"target = {target!r}: expected one of {sorted(TARGETS)}")
    if layout not in LAYOUTS:
        raise ExportError(f"layout = {layout!r}: expected one of {list(LAYOUTS)}")
    if opset not in OPSETS:
        raise ExportError(f"opset = {opset}: expected {OPSETS.start} to {OPSETS.stop - 1}")
    if max_new_tokens is not None and max_new_tokens < 1:
        raise ExportError(f"max_new_tokens = {max_new_tokens}: expected at least 1")
    say = progress or (lambda text: None)
    form = Form.of(precision)
    model = prepared(model)
    form.check(model, target, data, budget)
    if hidden_states:
        _check_hidden_states(model, layout)
    bundle = _Bundle(
        model,
        tokenizer,
        form=form,
        target=target,
        layout=layout,
        opset=opset,
        name=name or Path(out).name,
        max_new_tokens=max_new_tokens,
        hidden_states=hidden_states,
        source=source or {},
        say=say,
    )
    with staged(out, overwrite) as folder:
        settings, facts = form.quantization, None
        if settings is not None:
            trial = Trial(bundle, settings, data, folder / ".trials", say)
            settings, facts = trial.settle(budget)
        bundle.write(settings, folder, facts=facts)
        if verify:
            bundle.verify(folder)
    return Manifest.load(Path(out), check="size")


class _Bundle:
    """What is written, as often as a quantisation is tried: the conversion is made once."""

    def __init__(
        self,
        model: TaskModel,
        tokenizer: Any,
        *,
        form: "Form",
        target: str,
        layout: str,
        opset: int,
        name: str,
        max_new_tokens: int | None,
        hidden_states: bool,
        source: dict[str, Any],
        say: Progress,
    ) -> None:
        self.reference_model = model
        self.model = prepared(model, form.computed)
        self.tokenizer = tokenizer_of(self.model, tokenizer)
        self.form, self.target, self.layout, self.opset = form, target, layout, opset
        self.name, self.max_new_tokens, self.source, self.say = name, max_new_tokens, source, say
        self.places, self.weights_name = _places(self.model, target, layout, hidden_states)
        self.ranges: Ranges | None = None

    @cached_property
    def converted(self) -> list[tuple[Placed, Converted]]:
        """Each graph, in float or half precision."""
        found = []
        for place in self.places:
            self.say(f"converting {place.graph.name}")
            converted = convert(self.model, place.graph, self.target, self.opset)
            found.append((place, place.declared(self.form.stored(converted))))
        return found

    def quantizable(self) -> list[Converted]:
        """The graphs that answer."""
        return [converted for place, converted in self.converted if place.served]

    def _graphs(self, settings: Quantization | None) -> Iterator[tuple[Placed, Converted]]:
        for place, converted in self.converted:
            if settings is None:
                yield place, converted
                continue
            self.say(f"quantising {place.graph.name}")
            yield place, quantized(converted, settings, self.target, self.ranges)
            if settings.reads_apart and self.model.architecture == "decoder":
                graph = replace(converted.graph, name=PREFILL)
                reading = replace(converted, graph=graph)
                apart = replace(place, graph=graph, file=f"{PREFILL}.onnx")
                yield apart, quantized(reading, settings, self.target, self.ranges)

    def write(
        self,
        settings: Quantization | None,
        folder: Path,
        facts: dict[str, Any] | None = None,
    ) -> Manifest:
        """Writes the bundle into `folder`, in float where there are no settings."""
        graphs = {}
        places = []
        with WeightsFile(folder, self.weights_name) as weights:
            for place, converted in self._graphs(settings):
                self.say(f"writing {place.graph.name}")
                write_graph(converted, folder / place.file, weights)
                places.append(place)
                if place.served:
                    graphs[place.graph.name] = _graph_spec(converted, place.file)
        for place in places:
            _check(folder / place.file)
        if self.tokenizer is not None:
            self.tokenizer.save(folder)
        self._write_configs(folder, graphs)
        manifest = _manifest(
            self.model,
            self.name,
            target=self.target,
            precision=self.form.precision,
            quantization=None if settings is None else {**settings.facts(), **(facts or {})},
            opset=self.opset,
            graphs=graphs,
            files=_files(folder),
            tokenizer=tokenizer_spec(self.model, self.tokenizer),
            generation=generation_spec(self.model, self.max_new_tokens, self.tokenizer),
            source=self.source,
        )
        manifest.save(folder)
        return Manifest.load(folder, check="size")

    def _write_configs(self, folder: Path, graphs: dict[str, GraphSpec]) -> None:
        """config.json, generation_config.json and more, which others' tools and `serve` read."""
        model = self.model
        cache = _cache_spec(model, self.target)
        generation = generation_spec(model, self.max_new_tokens)
        if self.layout == "optimum":
            optimum.write_configs(model, folder, self.max_new_tokens or NEW_TOKENS)
        else:
            facts: dict[str, Any] = {"model_type": "keras-text-zoo", "task": model.task}
            facts |= config_to_mapping(model.config)
            if model.labels is not None:
                facts["id2label"] = {str(i): label for i, label in enumerate(model.labels)}
                facts["label2id"] = {label: i for i, label in enumerate(model.labels)}
            write_json(folder / "config.json", facts)
            if generation is not None:
                write_json(folder / "generation_config.json", generation_config(generation))
        if cache is not None and generation is not None and model.architecture == "decoder":
            special = None if self.tokenizer is None else self.tokenizer.special_ids
            facts = genai_config(
                graphs["model"], cache, generation, model.config, graphs.get(PREFILL), special
            )
            write_json(folder / GENAI_FILE, facts)
        sentences = (model.pretrained or {}).get("sentences") or {}
        if sentences.get("prompts"):
            write_json(folder / PROMPTS_FILE, sentences)

    def verify(self, folder: Path) -> None:
        """Puts reference values beside the graphs, replays them, and says so in the manifest."""
        self.say("computing reference values in Keras")
        reference = reference_values(self.reference_model, self.tokenizer)
        save_reference(folder / REFERENCE_FILE, reference)
        manifest = Manifest.load(folder, check="size")
        if self.layout == "optimum":
            optimum.verify(folder, self.reference_model, reference, **allowed(manifest))
        files = {**manifest.files, REFERENCE_FILE: FileSpec.of(folder / REFERENCE_FILE)}
        manifest = manifest.model_copy(update={"files": dict(sorted(files.items()))})
        manifest.save(folder)
        self.say("verifying through serve")
        report = replay_bundle(folder)
        manifest.model_copy(update={"verification": report}).save(folder)


def _check_hidden_states(model: TaskModel, layout: str) -> None:
    if not model.generates:
        raise ExportError(
            f"hidden_states: task {model.task!r} writes nothing; the states of other tasks are "
            "those of 'feature-extraction'"
        )
    if layout != "bundle":
        raise ExportError(
            f"hidden_states with layout = {layout!r}: its client takes no such output; choose "
            "layout 'bundle'"
        )


def _places(
    model: TaskModel, target: str, layout: str, hidden_states: bool
) -> tuple[list[Placed], str]:
    """The graphs with their files, and the name of the external data."""
    if layout == "optimum":
        optimum.check(model, target)
        places = optimum.placed(model)
        return places, optimum.weights_file(places)
    graphs = onnx_graphs(model, CACHES[target], hidden_states)
    return [Placed(graph, f"{graph.name}.onnx") for graph in graphs], WEIGHTS_FILE


def _check(path: Path) -> None:
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise ExportError(
            f"onnx.checker refuses {path.name}: {str(error).splitlines()[0]}"
        ) from error


def _graph_spec(converted: Converted, file: str) -> GraphSpec:
    graph: Graph = converted.graph

    def specs(tensors: Any) -> list[TensorSpec]:
        return [TensorSpec(name=t.name, dtype=t.dtype, shape=list(t.axes)) for t in tensors]

    return GraphSpec(
        file=file,
        inputs=specs(graph.inputs),
        outputs=specs(graph.outputs),
        operators=converted.operators,
        parameters=converted.parameters,
        optional_inputs=sorted(graph.defaults),
    )


def _files(folder: Path) -> dict[str, FileSpec]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): FileSpec.of(path) for path in paths}


def _manifest(model: TaskModel, name: str, **facts: Any) -> Manifest:
    head = {**model.spec.defaults, **model.head_facts}
    facts |= {"task": model.task, "architecture": model.architecture}
    return Manifest(
        name=name,
        labels=model.labels,
        problem_type=problem_type(model),
        pooling=head.get("pooling"),
        normalize=head.get("normalize"),
        cache=_cache_spec(model, facts["target"]),
        created_with=created_with("tensorflow", "keras", "tf2onnx", "onnx"),
        **facts,
    )


def _cache_spec(model: TaskModel, target: str) -> CacheSpec | None:
    if not model.generates:
        return None
    decoder: Any = model.decoder
    return CacheSpec(
        layout=CACHES[target],
        num_layers=len(decoder.layers),
        num_kv_heads=decoder.config.num_kv_heads,
        head_dim=decoder.config.head_dim,
        dtype=model.compute_dtype,
        max_length=decoder.length,
    )


__all__ = ["KEEP", "WEIGHTS_FILE", "to_onnx"]
