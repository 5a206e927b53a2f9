"""What may be asked of a quantisation."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from export.errors import ExportError
from export.quantization.choices import BLOCK_SIZES, EMBEDDINGS, HEADS, PRECISIONS, QUANTIZED

Kind = Literal["float32", "int8", "int8-static", "int8-weights", "int4"]
"""How the weights of a linear map are kept and multiplied.

- int8: 8 bits per channel; what they meet is brought to 8 bits as it comes.
- int8-static: the same, with ranges that were seen on calibration data.
- int8-weights, int4: 8 or 4 bits per block of weights; what they meet is brought to 8 bits by block
  where the processor multiplies those faster.
"""


@dataclass(frozen=True)
class Quantization:
    """How a graph is quantised.

    Attributes:
        precision: One of `QUANTIZED`.
        block_size: Weights that share a scale, for weight-only kinds.
        symmetric: Blocks are centred on 0; else each has a zero point (weight-only kinds).
        head: The kind of the map to the vocabulary; None: 8 bits.
        embedding: "int8" or "float32": tables that are looked up; None: 8 bits. A table that is
            the head too follows the head.
        leave: Weights that stay float32, by name.
    """

    precision: str = "int8"
    block_size: int = 32
    symmetric: bool = True
    head: Kind | None = None
    embedding: str | None = None
    leave: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.precision not in QUANTIZED:
            raise ExportError(f"precision = {self.precision!r}: expected one of {list(QUANTIZED)}")
        if self.block_size not in BLOCK_SIZES:
            raise ExportError(f"block_size = {self.block_size}: expected one of {BLOCK_SIZES}")
        if self.head not in (None, *HEADS):
            raise ExportError(f"head = {self.head!r}: expected one of {HEADS}")
        if self.embedding not in (None, *EMBEDDINGS):
            raise ExportError(f"embedding = {self.embedding!r}: expected one of {EMBEDDINGS}")

    def kind_of(self, graph: str) -> Kind:
        """The kind of the linear maps of a graph."""
        if self.precision == "int8-int4":
            return "int8" if graph in ("prefill", "encoder") else "int4"
        return self.precision  # type: ignore[return-value]

    @property
    def reads_apart(self) -> bool:
        """Whether a decoder's prompts go through a graph of their own."""
        return self.precision == "int8-int4"

    def leaving(self, names: frozenset[str]) -> "Quantization":
        """The same, with other weights left in float32."""
        return replace(self, leave=names)

    def facts(self) -> dict[str, Any]:
        """What the manifest says of it."""
        facts: dict[str, Any] = {"precision": self.precision}
        if self.precision in ("int8-weights", "int4", "int8-int4"):
            facts |= {"block_size": self.block_size, "symmetric": self.symmetric}
        facts |= {"head": self.head or "int8", "embedding": self.embedding or "int8"}
        return facts | {"left_in_float32": sorted(self.leave)}


__all__ = ["BLOCK_SIZES", "PRECISIONS", "QUANTIZED", "Kind", "Quantization"]
