"""How far an exported graph may be from Keras: the largest absolute difference of an output, per
precision.

Beside each figure the largest difference that `tests/test_export_onnx.py` met over its models,
shapes and targets.
"""

TOLERANCES = {
    "float32": 2e-4,  # measured 6e-6; 4e-5 with two layers whose keys are of size 50
}
"""Absolute, for outputs of the order of 1 to 10."""
