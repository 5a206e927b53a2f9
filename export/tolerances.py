"""How far an exported graph may be from Keras: the largest absolute difference of an output, per
precision.

Beside each figure the largest difference that `tests/test_export_onnx.py` met over its models,
shapes and targets.
"""

TOLERANCES = {
    "float32": 2e-4,  # measured 6e-6; 4e-5 with two layers whose keys are of size 50
    "float16": 5e-2,  # measured 1.9e-2, against float32, by SavedModels of tests/tiny.py
    "bfloat16": 5e-1,  # measured 1.6e-1, likewise; 1.1 where another expert was chosen
}
"""Absolute, for outputs of the order of 1 to 10."""

LITERT_TOLERANCES = {
    "float32": ("largest", 2e-4),  # measured 8.1e-6
    "float16": ("relative", 5e-2),  # measured 2.6e-3; 1.1e-2 where scores are not scaled
    "int8": ("relative", 3e-1),  # measured 8.3e-2; 2.4e-1 likewise
}
"""For .tflite files: which measure is judged (see `export.litert.verification`), and its limit."""
