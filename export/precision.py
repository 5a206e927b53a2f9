"""Precisions: what a graph computes in, how its weights are stored, how they are quantised."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from export.errors import ExportError
from export.half import computed_dtype, stored_in_bfloat16
from export.onnx import Converted
from export.quantization.settings import PRECISIONS, QUANTIZED, Quantization
from zoo.tasks import TaskModel


@dataclass(frozen=True)
class Form:
    """A precision, and what follows from it.

    Attributes:
        precision: One of `PRECISIONS`.
        quantization: How weights are quantised, where they are.
    """

    precision: str
    quantization: Quantization | None = None

    @classmethod
    def of(cls, precision: "str | Quantization") -> "Form":
        """The form that is asked for by its name, or in detail."""
        if isinstance(precision, Quantization):
            return cls(precision.precision, precision)
        if precision not in PRECISIONS:
            raise ExportError(f"precision = {precision!r}: expected one of {list(PRECISIONS)}")
        return cls(precision, Quantization(precision) if precision in QUANTIZED else None)

    @property
    def computed(self) -> str:
        """The type that the Keras model is traced in."""
        return computed_dtype(self.precision)

    def stored(self, converted: Converted) -> Converted:
        """The graph with its weights in the type they are stored in, before any quantisation."""
        return stored_in_bfloat16(converted) if self.precision == "bfloat16" else converted

    def check(self, model: TaskModel, target: str, data: Sequence[Any] | None, budget: Any) -> None:
        """Refuses what cannot be made, before any work is done.

        Raises:
            ExportError: Of what is asked, this target, model or data do not allow something.
        """
        if self.quantization is None:
            if budget is not None:
                raise ExportError(
                    f"a budget with precision {self.precision!r}: only quantised bundles have one "
                    f"({', '.join(QUANTIZED)})"
                )
            return
        if target != "onnxruntime" and "int4" in self.precision:
            raise ExportError(
                f"precision {self.precision!r} needs target 'onnxruntime': the standard operators "
                "of the opsets that are written here have no 4-bit weights; choose that target, "
                "or 'int8-weights'"
            )
        if self.precision == "int8-int4" and not model.generates:
            raise ExportError(
                "precision 'int8-int4' is for models that write text, whose prompts are read by "
                f"another graph; task {model.task!r} has one graph: choose 'int8' or 'int4'"
            )
        if self.precision == "int8-static":
            if model.architecture == "encoder-decoder":
                raise ExportError(
                    "precision 'int8-static' is not there for encoder-decoders; choose 'int8'"
                )
            if not data:
                raise ExportError(
                    "precision 'int8-static' needs data to be calibrated on: give data"
                )
