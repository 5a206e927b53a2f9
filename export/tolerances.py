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

HALF_TOLERANCES = {
    "float16": 3e-2,  # measured 4.8e-3; 1.1e-2 where scores are not scaled
    "bfloat16": 2e-1,  # measured 1.9e-2; 8e-2 likewise
}
"""ONNX in half precision against float32: root mean square of the difference over that of the
values.
"""

MIXTURE_TOLERANCES = {
    "float16": 1e-1,  # measured 2.4e-2
    "bfloat16": 5e-1,  # measured 2.6e-1
}
"""The same of mixtures of experts: rounding may choose another expert of two that are as good."""

QUANTIZED_TOLERANCES = {
    "int8": 0.3,  # measured 0.075; 0.15 on all-MiniLM-L6-v2 with ids at random, 0.10 with texts
    "int8-static": 0.5,  # measured 0.27, on ids that calibration had not seen
    "int8-weights": 0.1,  # measured 0.038
    "int4": 0.6,  # measured 0.41
    "int8-int4": 0.6,  # measured 0.31
}
"""Root mean square of the difference over that of the values, as tests/test_quantization.py met it
with weights drawn at random, which suffer most: what says that a quantised graph computes the same
function. How much is lost on a task is measured apart, on data.
"""
QUANTIZED_MIXTURE_TOLERANCE = 1.5
"""The same where a router chooses experts: rounded scores may choose another."""

LITERT_TOLERANCES = {
    "float32": ("largest", 2e-4),  # measured 8.1e-6
    "float16": ("relative", 2e-2),  # measured 1.2e-3 with weights of 0.08; 1.1e-2 with 0.25
    "int8": ("relative", 3e-1),  # measured 3.9e-2 and 2.4e-1 likewise; 1.1e-1 by MiniLM
}
"""For .tflite files: which measure is judged (see `export.litert.verification`), and its limit."""
