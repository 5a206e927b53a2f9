"""`to_litert`: a folder with one .tflite file, verified, and what a program beside it needs."""

import os
from collections.abc import Callable
from typing import Any

from export.errors import ExportError, VerificationError
from export.facts import created_with, tokenizer_spec
from export.generation_defaults import generation_spec
from export.graphs import Graph
from export.litert.conversion import PRECISIONS, convert, minimum_runtime, operators
from export.litert.graphs import DEFAULT_LENGTH, litert_graphs
from export.litert.verification import interpreter_type, verified
from export.models import prepared, tokenizer_of
from export.staging import staged
from serve.bundle.integrity import FileSpec
from serve.bundle.manifest import CacheSpec, TensorSpec
from zoo.backbones.config import config_to_mapping
from zoo.quiet import native_lines_withheld
from zoo.tasks import TaskModel
from zoo.text.json_file import write_json

MODEL_FILE = "model.tflite"
FACTS_FILE = "litert.json"
SCHEMA_VERSION = 1
NEW_TOKENS = 64
"""Tokens that a program writes where it is not told how many."""


def to_litert(
    model: Any,
    out: str | os.PathLike[str],
    *,
    precision: str = "float32",
    tokenizer: Any = None,
    max_length: int | None = None,
    verify: bool = True,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Exports a model for LiteRT: `model.tflite`, `tokenizer.json`, `config.json` and
    `litert.json`, from which `ai-edge-litert` and `tokenizers` answer with nothing else installed.

    The signature `serving_default` is the whole model. Models that write have `prefill` and
    `decode` instead, with `encode` before them where there is an encoder; see
    `export.litert.graphs`. Batch sizes and lengths of texts are dynamic, the cache's length is
    fixed. Names and types of tensors are those of the ONNX graphs; only LiteRT's own operators are
    used.

    Args:
        model: A `zoo.TaskModel`.
        out: The folder to make.
        precision: "float32"; "float16": half the bytes, computed in float32; "int8": weights of
            one byte, per output channel, and activations quantised as they come.
        tokenizer: By default the model's own.
        max_length: Positions of the cache of a model that writes: prompt and new tokens. By
            default as many as the model has, at most 1024.
        verify: Run the file in LiteRT's interpreter, on shapes that were not traced, and compare it
            with Keras before the folder appears.
        overwrite: Replace `out` where it exists.
        progress: Called with what is being done.

    Returns:
        What `litert.json` holds.

    Raises:
        ExportError: The export cannot be made, or its values are not those of Keras; `out` is then
            untouched.
    """
    if precision not in PRECISIONS:
        raise ExportError(f"precision = {precision!r}: expected one of {list(PRECISIONS)}")
    say = progress or (lambda text: None)
    model = prepared(model)
    tokenizer = tokenizer_of(model, tokenizer)
    length = _cache_length(model, max_length)
    if verify:
        interpreter_type()  # before minutes are spent
    graphs = litert_graphs(model, length)
    with staged(out, overwrite) as folder:
        say("converting")
        content = convert(model, graphs, precision, folder)
        path = folder / MODEL_FILE
        path.write_bytes(content)
        facts = _facts(model, graphs, precision, length, tokenizer)
        facts |= {"operators": operators(content), "runtime": minimum_runtime(content)}
        del content
        if verify:
            say("verifying in LiteRT's interpreter")
            with native_lines_withheld(VerificationError):  # the interpreter tells of its delegates
                facts["verification"] = verified(model, path, graphs, length, precision)
        if tokenizer is not None:
            tokenizer.save(folder)
        config = {"model_type": "keras-text-zoo", "task": model.task}
        write_json(folder / "config.json", config | config_to_mapping(model.config))
        facts["files"] = {
            file.name: FileSpec.of(file).model_dump() for file in sorted(folder.iterdir())
        }
        write_json(folder / FACTS_FILE, facts)
    return facts


def _cache_length(model: TaskModel, asked: int | None) -> int | None:
    if not model.generates:
        if asked is not None:
            raise ExportError(
                f"max_length = {asked}: task {model.task!r} keeps no cache, and takes texts of "
                "every length up to the model's own; leave it out"
            )
        return None
    decoder: Any = model.decoder
    if asked is None:
        return min(decoder.length, DEFAULT_LENGTH)
    if not 2 <= asked <= decoder.length:
        raise ExportError(
            f"max_length = {asked}: expected 2 to {decoder.length}, the model's own length"
        )
    return asked


def _facts(
    model: TaskModel, graphs: list[Graph], precision: str, length: int | None, tokenizer: Any
) -> dict[str, Any]:
    """What a program must know to answer from the file, and what the file is."""
    head = {**model.spec.defaults, **model.head_facts}
    config: Any = model.config
    facts: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "task": model.task,
        "architecture": model.architecture,
        "precision": precision,
        "model": MODEL_FILE,
        "labels": model.labels,
        "pooling": head.get("pooling"),
        "normalize": head.get("normalize"),
        "max_length": length or config.max_length,
        "pad_token_id": config.pad_token_id,
        "tokenizer": None,
        "cache": None,
        "generation": None,
        "signatures": {graph.name: _signature(graph) for graph in graphs},
        "parameters": int(model.count_params()),
    }
    spec = tokenizer_spec(model, tokenizer)
    if spec is not None:
        facts["tokenizer"] = spec.model_dump()
    if length is not None:
        decoder: Any = model.decoder
        cache = CacheSpec(
            layout="buffer",
            num_layers=len(decoder.layers),
            num_kv_heads=decoder.config.num_kv_heads,
            head_dim=decoder.config.head_dim,
            max_length=length,
        )
        generation = generation_spec(model, min(NEW_TOKENS, length - 1))
        assert generation is not None
        facts |= {"cache": cache.model_dump(), "generation": generation.model_dump()}
    return facts | {"created_with": created_with("tensorflow", "keras")}


def _signature(graph: Graph) -> dict[str, Any]:
    """Inputs and outputs of a signature; a named axis is dynamic."""
    return {
        side: [
            TensorSpec(name=t.name, dtype=t.dtype, shape=list(t.axes)).model_dump() for t in tensors
        ]
        for side, tensors in (("inputs", graph.inputs), ("outputs", graph.outputs))
    }
