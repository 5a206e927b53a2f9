"""Which layer of the Keras model a tensor or node of its graph belongs to, by its name.

A conversion names what it makes by the scopes of the trace, in which Keras numbers the calls of
each layer: `model_1/encoder_1/block_0_3/attention_1/query_1/add:0` is `encoder/block_0/attention/
query`, and `block_0_3` and `block_0_1` are two calls of one block. Quantisation and half precision
keep the name of what they replace.
"""

import re
from dataclasses import dataclass
from functools import cached_property

from serve.bundle.weights import kind_of

_INSERTED = re.compile(r"^(?:Inserted\w*?Cast_|FusedBack_)+")
"""What ONNX Runtime puts before the names of tensors that it casts to float32 and back."""
_TENSOR = re.compile(r"(.+)/[^/:]+:\d+$")
_PARTS = ("encoder", "decoder", "head")
SECTIONS = ("embeddings", "attention", "feed-forward", "norm", "head", "other")
"""What the nodes of a graph are grouped by."""


@dataclass(frozen=True)
class Scope:
    """The scope that a name begins with, as it was traced (`raw`)."""

    raw: str

    @cached_property
    def path(self) -> str:
        """The layer's path below the model, without the numbers of calls."""
        parts = [_plain(part) for part in _INSERTED.sub("", self.raw).split("/")]
        if parts and parts[0] not in _PARTS:
            parts = parts[1:] if len(parts) > 1 and parts[1] in _PARTS else parts
        return "/".join(parts)

    @property
    def block(self) -> str | None:
        """Such as "encoder/block_3"; None outside of the blocks."""
        found = re.match(r"(?:encoder|decoder)/block_\d+", self.path)
        return found[0] if found else None

    @property
    def section(self) -> str:
        """One of `SECTIONS`."""
        if self.path.startswith("head"):
            return "head"
        if "/embeddings" in self.path:
            return "embeddings"
        kind = kind_of(self.path)
        return kind if kind in SECTIONS else "other"


def _plain(part: str) -> str:
    block = re.match(r"block_\d+", part)
    return block[0] if block else re.sub(r"(_\d+)+$", "", part)


def scope_of_tensor(name: str) -> Scope | None:
    """The scope of a tensor; None for what was named by other rules."""
    found = _TENSOR.match(name)
    return Scope(found[1]) if found else None


def scope_of_node(name: str, outputs: list[str], inputs: list[str]) -> Scope:
    """The scope of a node: by what it makes, else by its own name, else by what it reads.

    Runtimes name fused nodes anew, but keep the names of tensors.
    """
    for made in outputs:
        stem = made.split(":", 1)[0] if ":" in made else ""
        found = scope_of_tensor(f"{stem}:0") if stem else None
        if found is not None:
            return found
    for read in inputs:  # weights bear their layer's path
        head, _, _ = _INSERTED.sub("", read).rpartition("/")
        if head.startswith(_PARTS) and ":" not in read:
            return Scope(head)
    return Scope(name.rpartition("/")[0])
