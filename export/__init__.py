"""The bridge from Keras to runtimes: ONNX bundles and SavedModels, verified before they are handed
over.
"""

import importlib
from typing import TYPE_CHECKING, Any

from export.errors import ExportError, VerificationError

if TYPE_CHECKING:
    from export.bundle import to_onnx
    from export.layouts.tf_serving import to_tf_serving
    from export.layouts.triton import to_triton
    from export.litert import to_litert
    from export.saved_model import to_saved_model
    from export.text_onnx import to_text_onnx
    from export.verify import compare_bundle

__all__ = [
    "ExportError",
    "VerificationError",
    "compare_bundle",
    "to_litert",
    "to_onnx",
    "to_saved_model",
    "to_text_onnx",
    "to_tf_serving",
    "to_triton",
]

_HOMES = {
    "compare_bundle": "export.verify",
    "to_litert": "export.litert",
    "to_onnx": "export.bundle",
    "to_saved_model": "export.saved_model",
    "to_text_onnx": "export.text_onnx",
    "to_tf_serving": "export.layouts.tf_serving",
    "to_triton": "export.layouts.triton",
}


def __getattr__(name: str) -> Any:
    """Imports what needs TensorFlow only when it is used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'export' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
