"""What differs between two bundles: facts, files, operators, tensors and the weights' values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from serve.bundle.graph_file import GraphFile, StoredTensor
from serve.bundle.inspect import describe
from serve.bundle.manifest import Manifest
from serve.bundle.weights import is_constant, read_graphs, weight_of, weights_of

_APART = ("files", "graphs", "weights", "bytes", "parameters", "verification")
JOINED = "query_key_value"
"""What a map is called that computes what three did."""
_CHUNK = 1 << 24
"""Bytes compared at a time."""


def compare(first: str | Path | Manifest, second: str | Path | Manifest) -> dict[str, Any]:
    """Compares two bundles.

    Args:
        first: A bundle.
        second: Another.

    Returns:
        - `facts`: {dotted name: [first, second]} of the manifest where they differ;
        - `sizes`: bytes and parameters, by kind and by type, and verification's largest
          difference, [first, second] each, equal ones too;
        - `files`: {name: [bytes, bytes]} of files that differ or that one lacks (None);
        - `operators`: {graph: {operator: [count, count]}} where counts differ, and `interfaces`:
          {graph: {tensor: [first, second]}} of inputs and outputs;
        - `tensors`: `first_only` and `second_only` (name: "type[shape]"), `changed` ({name:
          ["type[shape]", "type[shape]"]}; a weight in another form bears the weight's name),
          `values` ({name: {"largest", "share"}}: largest absolute difference and share of numbers
          that differ; null where bytes differ that are no floats), `equal`: how many are the same.

    Raises:
        BundleError: One is not whole.
    """
    manifests = [
        bundle if isinstance(bundle, Manifest) else Manifest.load(bundle, check="size")
        for bundle in (first, second)
    ]
    facts = [describe(manifest) for manifest in manifests]
    graphs = [read_graphs(manifest) for manifest in manifests]
    flat = [_flat({k: v for k, v in fact.items() if k not in _APART}) for fact in facts]
    specs = [
        {name: (spec.sha256, spec.bytes) for name, spec in manifest.files.items()}
        for manifest in manifests
    ]
    return {
        "names": [str(manifest.folder) for manifest in manifests],
        "facts": _differing(*flat),
        "sizes": _sizes(*facts),
        "files": {
            name: [None if spec is None else spec[1] for spec in pair]
            for name, pair in _differing(*specs).items()
        },
        "operators": _by_graph(*[_operators(graph) for graph in graphs]),
        "interfaces": _by_graph(*[_interfaces(fact) for fact in facts]),
        "tensors": _tensors(*[_stored(graph) for graph in graphs]),
    }


def _flat(facts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested facts by dotted names."""
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    names = dict.fromkeys((*first, *second))
    pairs = {name: [first.get(name), second.get(name)] for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _sizes(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    rows: dict[str, list[Any]] = {key: [first[key], second[key]] for key in ("bytes", "parameters")}
    for table in ("kinds", "dtypes"):
        both = [facts["weights"][table] for facts in (first, second)]
        for key in dict.fromkeys((*both[0], *both[1])):
            rows[f"bytes of {key}"] = [side.get(key, {}).get("bytes", 0) for side in both]
    rows["verification.largest"] = [
        facts["verification"].get("largest") for facts in (first, second)
    ]
    return rows


def _operators(graphs: Mapping[str, GraphFile]) -> dict[str, dict[str, Any]]:
    return {name: dict(graph.operators) for name, graph in graphs.items()}


def _interfaces(facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Inputs and outputs of each graph: name to type and axes."""
    found: dict[str, dict[str, Any]] = {}
    for name, graph in facts["graphs"].items():
        lines = [(side, line) for side in ("inputs", "outputs") for line in graph[side]]
        found[name] = {
            f"{side[:-1]} {line.split(' ', 1)[0]}": line.split(" ", 1)[1] for side, line in lines
        }
    return found


def _by_graph(
    first: Mapping[str, dict[str, Any]], second: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, list[Any]]]:
    names = dict.fromkeys((*first, *second))
    found = {name: _differing(first.get(name, {}), second.get(name, {})) for name in names}
    return {name: differing for name, differing in found.items() if differing}


def _stored(graphs: Mapping[str, GraphFile]) -> dict[str, StoredTensor]:
    """Weights and tables; small constants, whose names the conversion counted, are left out."""
    return {
        name: weight.tensor
        for name, weight in weights_of(graphs).items()
        if weight.parameters or not is_constant(name) or weight.tensor.bytes >= 1024
    }


def _tensors(
    first: Mapping[str, StoredTensor], second: Mapping[str, StoredTensor]
) -> dict[str, Any]:
    changed: dict[str, list[str]] = {}
    values: dict[str, dict[str, float] | None] = {}
    equal = 0
    for name in first.keys() & second.keys():
        pair = first[name], second[name]
        said = [_said(tensor) for tensor in pair]
        if said[0] != said[1]:
            changed[name] = said
            if pair[0].shape != pair[1].shape:
                continue
        elif _same(*pair):
            equal += 1
            continue
        values[name] = _gap(*pair)
    only = [
        {name: _said(tensor) for name, tensor in sorted(mine.items()) if name not in theirs}
        for mine, theirs in ((first, second), (second, first))
    ]
    changed |= _other_forms(*only)
    return {
        "first_only": only[0],
        "second_only": only[1],
        "changed": dict(sorted(changed.items())),
        "values": {n: v for n, v in sorted(values.items()) if n not in changed or v is not None},
        "equal": equal,
    }


def _other_forms(first: dict[str, str], second: dict[str, str]) -> dict[str, list[str]]:
    """Weights that each side stores in forms of its own, such as float32 and int8 with a scale, or
    apart and joined: these are taken out of what each has alone.
    """
    forms: dict[str, list[list[str]]] = {}
    for side, names in enumerate((first, second)):
        for name in names:
            stem = weight_of(re.sub(r"/(scale|zero_point)$", "", name))
            forms.setdefault(stem, [[], []])[side].append(name)
    for stem in list(forms):
        whole = re.sub(r"/(query|key|value)/", f"/{JOINED}/", stem)
        if whole != stem and whole in forms:
            for side, names_of_side in enumerate(forms.pop(stem)):
                forms[whole][side] += names_of_side
    found = {}
    for stem, (ours, theirs) in forms.items():
        if ours and theirs:
            found[stem] = [
                " + ".join(names.pop(name) for name in group)
                for names, group in ((first, ours), (second, theirs))
            ]
    return found


def _said(tensor: StoredTensor) -> str:
    return f"{tensor.dtype}[{', '.join(map(str, tensor.shape))}]"


def _same(first: StoredTensor, second: StoredTensor) -> bool:
    if first.bytes != second.bytes:
        return False
    left, right = first.data(), second.data()
    return all(
        np.array_equal(left[at : at + _CHUNK], right[at : at + _CHUNK])
        for at in range(0, len(left), _CHUNK)
    )


def _gap(first: StoredTensor, second: StoredTensor) -> dict[str, float] | None:
    """Largest absolute difference, and the share of numbers that differ; None for no floats."""
    left, right = first.floats(), second.floats()
    if left is None or right is None or left.shape != right.shape:
        return None
    largest, count = 0.0, 0
    for at in range(0, len(left), _CHUNK // 4):
        piece = slice(at, at + _CHUNK // 4)
        a, b = left[piece].astype(np.float32), right[piece].astype(np.float32)
        differs = (a != b) & ~(np.isnan(a) & np.isnan(b))
        count += int(differs.sum())
        if differs.any():
            with np.errstate(invalid="ignore"):
                gaps = np.abs(a[differs] - b[differs])
            largest = max(largest, float(np.nan_to_num(gaps, nan=np.inf).max()))
    return {"largest": largest, "share": count / max(1, len(left))}
