"""The weights of a bundle: what each is for, and what they take, each counted once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from serve.bundle.graph_file import GraphFile, Node, StoredTensor, read_graph
from serve.bundle.manifest import Manifest

KINDS = (
    "token embedding",
    "positions",
    "attention",
    "feed-forward",
    "norm",
    "head",
    "other",
)
"""What a weight is for."""

_PARTS = {
    "tokens": "token embedding",
    "positions": "positions",
    "relative_bias": "positions",
    "relative_states": "positions",
    "attention": "attention",
    "cross_attention": "attention",
    "feed_forward": "feed-forward",
}
_TABLES = ("rotary_", "sinusoids", "alibi")
_PACKED = {"MatMulNBits": 1, "GatherBlockQuantized": 0}
"""Which input of an operator holds several numbers a byte; scales and zero points stand behind."""


@dataclass(frozen=True)
class Weight:
    """A stored tensor, what it is for, and how many parameters of the model it holds.

    Scales and zero points of quantised weights, tables and constants hold none.
    """

    tensor: StoredTensor
    kind: str
    parameters: int


def kind_of(name: str) -> str:
    """What a weight is for, by the Keras path that is its name.

    A quantised weight's scale (`PATH/scale`) is of the kind of its weight. An embedding that is
    also the head is a token embedding.
    """
    parts = name.split("/")
    if any(part == "norm" or part.endswith("_norm") for part in parts):
        return "norm"
    for part in parts:
        if part in _PARTS:
            return _PARTS[part]
    if parts[0] == "head":
        return "head"
    return "positions" if name.startswith(_TABLES) else "other"


def is_constant(name: str) -> bool:
    """Whether a stored tensor bears a name that the conversion made up, no Keras path."""
    return "/" not in name or ":" in name or re.search(r"__\d+$", name) is not None


_FORMS = re.compile(r"(/transposed|/rows|/u?int\d+|/b?float\d+)+$")


def weight_of(name: str) -> str:
    """The model's weight that a stored tensor is a form of: `PATH/int8` is one of `PATH`."""
    return _FORMS.sub("", name)


def block_of(name: str) -> str | None:
    """The block that a weight or node belongs to, such as "decoder/block_3"; None outside of them.

    Nodes are named by the scopes of the trace, in which Keras numbers its layers: `block_3_1`.
    """
    found = re.search(r"(?:^|/)(?:(encoder|decoder)(?:_\d+)?/)?block_(\d+)(?:_\d+)?/", name)
    if found is None:
        return None
    return f"{found[1] or 'model'}/block_{found[2]}"


def read_graphs(manifest: Manifest) -> dict[str, GraphFile]:
    """The graphs of a bundle by name."""
    return {name: read_graph(manifest.path(spec.file)) for name, spec in manifest.graphs.items()}


def weights_of(graphs: Mapping[str, GraphFile]) -> dict[str, Weight]:
    """Every stored tensor of the graphs by name, each place in a file once.

    A weight that is stored in several forms, such as 8 and 4 bits, counts once as parameters.
    """
    found: dict[str, Weight] = {}
    places: set[tuple[Any, int]] = set()
    counted: set[str] = set()
    for graph_name, graph in graphs.items():
        uses = _uses(graph.nodes)
        for name, tensor in graph.tensors.items():
            place = (tensor.file, tensor.offset)
            if tensor.bytes and place in places:
                continue
            places.add(place)
            known = found.get(name)
            key = name if known is None else f"{name} ({graph_name})"
            parameters = _parameters(tensor, uses.get(name), graph.tensors)
            if parameters and weight_of(name) in counted:
                parameters = 0
            elif parameters:
                counted.add(weight_of(name))
            found[key] = Weight(tensor, kind_of(name), parameters)
    return found


def _uses(nodes: Iterable[Node]) -> dict[str, tuple[Node, int]]:
    """The first node that reads each tensor, and as which of its inputs."""
    uses: dict[str, tuple[Node, int]] = {}
    for node in nodes:
        for at, name in enumerate(node.inputs):
            uses.setdefault(name, (node, at))
    return uses


def _parameters(
    tensor: StoredTensor, use: tuple[Node, int] | None, tensors: Mapping[str, StoredTensor]
) -> int:
    name = tensor.name
    if is_constant(name) or name.rpartition("/")[0] in tensors:  # the latter: a scale
        return 0
    if use is not None:
        node, at = use
        if node.operator == "DequantizeLinear" and at > 0:
            return 0
        if node.operator in _PACKED:
            if at > _PACKED[node.operator]:
                # Behind scales and zero points a MatMulNBits may read a bias.
                return tensor.elements if at > 4 else 0
            if node.operator == "MatMulNBits":
                return node.numbers["K"] * node.numbers["N"]
            packed = node.numbers.get("bits", 4) if tensor.dtype == "uint8" else None
            return tensor.elements * 8 // packed if packed else tensor.elements
    return tensor.elements


def totals(weights: Iterable[Weight]) -> dict[str, dict[str, dict[str, Any]]]:
    """Tensors, parameters and bytes by kind and by type, largest first; kinds with their types."""
    kinds: dict[str, dict[str, Any]] = {}
    dtypes: dict[str, dict[str, Any]] = {}
    for weight in weights:
        tensor = weight.tensor
        for table, key in ((kinds, weight.kind), (dtypes, tensor.dtype)):
            row = table.setdefault(key, {"tensors": 0, "parameters": 0, "bytes": 0})
            row["tensors"] += 1
            row["parameters"] += weight.parameters
            row["bytes"] += tensor.bytes
        by_type = kinds[weight.kind].setdefault("dtypes", {})
        by_type[tensor.dtype] = by_type.get(tensor.dtype, 0) + tensor.bytes

    def ordered(table: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return dict(sorted(table.items(), key=lambda item: -item[1]["bytes"]))

    return {"kinds": ordered(kinds), "dtypes": ordered(dtypes)}
