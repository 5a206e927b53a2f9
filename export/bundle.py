"""`to_onnx`: a Keras model becomes a bundle that `serve` answers from, verified first."""

import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from export.errors import ExportError
from export.graphs import KEEP, Graph, onnx_graphs
from export.layouts import optimum
from export.layouts.genai import GENAI_FILE, genai_config
from export.layouts.optimum import Placed
from export.lowering import TARGETS
from export.models import prepared, tokenizer_of
from export.onnx import WEIGHTS_FILE, Converted, WeightsFile, convert, write_graph
from export.reference import REFERENCE_FILE, reference_values, save_reference
from export.staging import staged
from export.verify import replay_bundle
from serve.integrity import FileSpec
from serve.manifest import (
    CacheSpec,
    GenerationSpec,
    GraphSpec,
    Manifest,
    TensorSpec,
    TokenizerSpec,
)
from zoo import __version__
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
    layout: str = "bundle",
    tokenizer: Any = None,
    name: str | None = None,
    opset: int = 18,
    max_new_tokens: int = 64,
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
        layout: "bundle", or "optimum": the same with the files that Optimum and
            sentence-transformers look for; generating models then need target "portable".
        tokenizer: A `zoo.text.Tokenizer`; by default the model's own.
        name: The bundle's name; by default the folder's.
        opset: Version of ONNX' operators.
        max_new_tokens: Default length of what a generating bundle writes.
        verify: Replay reference values through `serve` before the folder appears.
        overwrite: Replace `out` where it exists.
        source: Where the model came from, for the manifest.
        progress: Called with what is being done.

    Returns:
        The bundle's manifest.

    Raises:
        ExportError: The export cannot be made, or its values are not those of Keras; `out` is then
            untouched.
    """
    if target not in TARGETS:
        raise ExportError(f"target = {target!r}: expected one of {sorted(TARGETS)}")
    if layout not in LAYOUTS:
        raise ExportError(f"layout = {layout!r}: expected one of {list(LAYOUTS)}")
    if opset not in OPSETS:
        raise ExportError(f"opset = {opset}: expected {OPSETS.start} to {OPSETS.stop - 1}")
    if max_new_tokens < 1:
        raise ExportError(f"max_new_tokens = {max_new_tokens}: expected at least 1")
    say = progress or (lambda text: None)
    model = prepared(model)
    tokenizer = tokenizer_of(model, tokenizer)
    places, weights_name = _places(model, target, layout)
    with staged(out, overwrite) as folder:
        graphs = {}
        with WeightsFile(folder, weights_name) as weights:
            for place in places:
                say(f"converting {place.graph.name}")
                converted = place.declared(convert(model, place.graph, target, opset))
                say(f"writing {place.graph.name}")
                write_graph(converted, folder / place.file, weights)
                if place.served:
                    graphs[place.graph.name] = _graph_spec(converted, place.file)
        for place in places:
            _check(folder / place.file)
        if tokenizer is not None:
            tokenizer.save(folder)
        _write_configs(model, folder, max_new_tokens, target, layout, graphs)
        if verify:
            say("computing reference values in Keras")
            reference = reference_values(model, tokenizer)
            save_reference(folder / REFERENCE_FILE, reference)
            if layout == "optimum":
                optimum.verify(places, folder, model, reference)
        manifest = _manifest(
            model,
            name or Path(out).name,
            target=target,
            opset=opset,
            graphs=graphs,
            files=_files(folder),
            tokenizer=_tokenizer_spec(model, tokenizer),
            generation=_generation(model, max_new_tokens),
            source=source or {},
        )
        manifest.save(folder)
        if verify:
            say("verifying through serve")
            report = replay_bundle(folder)
            manifest = manifest.model_copy(update={"verification": report})
            manifest.save(folder)
    return Manifest.load(Path(out), check="size")


def _places(model: TaskModel, target: str, layout: str) -> tuple[list[Placed], str]:
    """The graphs with their files, and the name of the external data."""
    if layout == "optimum":
        optimum.check(model, target)
        places = optimum.placed(model)
        return places, optimum.weights_file(places)
    graphs = onnx_graphs(model, CACHES[target])
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
        parameters=int(sum(np.prod(v.shape) for v in converted.weights.values())),
        optional_inputs=sorted(graph.defaults),
    )


def _files(folder: Path) -> dict[str, FileSpec]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): FileSpec.of(path) for path in paths}


def _manifest(model: TaskModel, name: str, **facts: Any) -> Manifest:
    head = {**model.spec.defaults, **model.head_facts}
    versions = {
        package: _version(package) for package in ("tensorflow", "keras", "tf2onnx", "onnx")
    }
    facts |= {"task": model.task, "architecture": model.architecture}
    return Manifest(
        name=name,
        labels=model.labels,
        pooling=head.get("pooling"),
        normalize=head.get("normalize"),
        cache=_cache_spec(model, facts["target"]),
        created_with={"keras-text-zoo": __version__, **versions},
        **facts,
    )


def _version(package: str) -> str:
    """The installed version; tensorflow may come as tensorflow-cpu."""
    for name in (package, f"{package}-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def _tokenizer_spec(model: TaskModel, tokenizer: Any) -> TokenizerSpec | None:
    if tokenizer is None:
        return None
    longest = model.config.max_length
    return TokenizerSpec(
        pad_token_id=model.config.pad_token_id,
        max_length=min(longest, getattr(tokenizer, "model_max_length", None) or longest),
        mask_token_id=tokenizer.mask_token_id,
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
        max_length=decoder.length,
    )


def _generation(model: TaskModel, max_new_tokens: int) -> GenerationSpec | None:
    if not model.generates:
        return None
    config: Any = model.config
    decoder: Any = model.decoder
    return GenerationSpec(
        bos_token_id=config.bos_token_id,
        eos_token_id=[
            token for token in (config.eos_token_id, *config.stop_token_ids) if token is not None
        ],
        pad_token_id=config.pad_token_id,
        decoder_start_token_id=getattr(config, "decoder_start_token_id", None),
        max_new_tokens=min(max_new_tokens, decoder.length),
    )


def _write_configs(
    model: TaskModel,
    folder: Path,
    max_new_tokens: int,
    target: str,
    layout: str,
    graphs: dict[str, GraphSpec],
) -> None:
    """config.json, generation_config.json and genai_config.json, which others' tools look for."""
    cache, generation = _cache_spec(model, target), _generation(model, max_new_tokens)
    if layout == "optimum":
        optimum.write_configs(model, folder, max_new_tokens)
    else:
        facts: dict[str, Any] = {"model_type": "keras-text-zoo", "task": model.task}
        facts |= config_to_mapping(model.config)
        if model.labels is not None:
            facts["id2label"] = {str(i): label for i, label in enumerate(model.labels)}
            facts["label2id"] = {label: i for i, label in enumerate(model.labels)}
        write_json(folder / "config.json", facts)
        if generation is not None:
            write_json(folder / "generation_config.json", generation.model_dump(exclude_none=True))
    if cache is not None and generation is not None and model.architecture == "decoder":
        facts = genai_config(graphs["model"], cache, generation, model.config)
        write_json(folder / GENAI_FILE, facts)


__all__ = ["KEEP", "WEIGHTS_FILE", "to_onnx"]
