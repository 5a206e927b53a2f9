"""How far an exported graph may be from Keras: the largest absolute difference of an output, per
precision.

Beside each figure the largest difference that `tests/test_export_onnx.py` met over its models,
shapes and targets.
"""

TOLERANCES = {
    "float32": 2e-4,  # measured 3e-5 (logits of size 10)
}
"""Absolute, for outputs of the order of 1 to 10; scaled by the largest reference value beyond 10.
"""
