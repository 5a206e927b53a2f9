"""What a bundle is, read from its manifest and its graphs: no weight is loaded and nothing run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from serve.bundle.graph_file import GraphFile
from serve.bundle.manifest import GraphSpec, Manifest, TensorSpec
from serve.bundle.weights import read_graphs, totals, weights_of


def describe(bundle: str | Path | Manifest) -> dict[str, Any]:
    """Facts about a bundle as plain data.

    `weights` has tensors, parameters and bytes by kind and by type, each weight once; `parameters`
    counts the model's, without scales, zero points and tables.

    Raises:
        BundleError: It is not whole.
    """
    manifest = bundle if isinstance(bundle, Manifest) else Manifest.load(bundle, check="size")
    sizes = {name: spec.bytes for name, spec in manifest.files.items()}
    files = read_graphs(manifest)
    weights = weights_of(files).values()
    return {
        "name": manifest.name,
        "task": manifest.task,
        "architecture": manifest.architecture,
        "target": manifest.target,
        "opset": manifest.opset,
        "precision": manifest.precision,
        "quantization": manifest.quantization,
        "bytes": sum(sizes.values()),
        "parameters": sum(weight.parameters for weight in weights),
        "weights": totals(weights),
        "files": sizes,
        "graphs": {name: _graph(graph, files[name]) for name, graph in manifest.graphs.items()},
        "tokenizer": manifest.tokenizer.model_dump() if manifest.tokenizer else None,
        "labels": manifest.labels,
        "pooling": manifest.pooling,
        "normalize": manifest.normalize,
        "cache": _cache(manifest),
        "generation": manifest.generation.model_dump() if manifest.generation else None,
        "verification": manifest.verification,
        "source": manifest.source,
        "created_with": manifest.created_with,
    }


def _graph(graph: GraphSpec, file: GraphFile) -> dict[str, Any]:
    return {
        "file": graph.file,
        "parameters": graph.parameters,
        "inputs": [_tensor(tensor) for tensor in graph.inputs],
        "optional_inputs": graph.optional_inputs,
        "outputs": [_tensor(tensor) for tensor in graph.outputs],
        "nodes": len(file.nodes),
        "operators": dict(sorted(file.operators.items(), key=lambda item: -item[1])),
    }


def _tensor(tensor: TensorSpec) -> str:
    axes = ", ".join("?" if axis is None else str(axis) for axis in tensor.shape)
    return f"{tensor.name} {tensor.dtype}[{axes}]"


def _cache(manifest: Manifest) -> dict[str, Any] | None:
    cache = manifest.cache
    if cache is None:
        return None
    width = {"float16": 2, "bfloat16": 2, "float64": 8}.get(cache.dtype, 4)
    per_position = 2 * cache.num_layers * cache.num_kv_heads * cache.head_dim * width
    return cache.model_dump() | {"bytes_per_position": per_position}


def fold_layers(lines: list[str]) -> list[str]:
    """Shorten the lists of a layered graph: tensors of layer 1 and on become one line per kind."""
    shown: list[str] = []
    counts: dict[str, int] = {}
    for line in lines:
        head, *rest = line.split(".")
        if rest and rest[0].isdigit():
            kind = ".".join([head, "{i}", *rest[1:]])
            if kind not in counts:
                shown.append(kind)
            counts[kind] = counts.get(kind, 0) + 1
        else:
            shown.append(line)
    return [f"{line}  x {counts[line]}" if line in counts else line for line in shown]
