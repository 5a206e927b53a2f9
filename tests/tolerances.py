"""How far two ways to compute the same thing may differ: the largest absolute difference, by dtype.

Beside each figure stands the largest difference measured (CPU, outputs of the order of 1 unless stated).
"""

FLOAT32 = {
    "primitive": 2e-6,  # measured 4.8e-7: primitives and layers against numpy in float64
    "keras_layer": 2e-6,  # measured 4.8e-7: our layers against those of Keras
    "cached_step": 2e-4,  # measured 2.5e-5: prefill and steps against the full pass, logits up to 40
    "padding": 2e-4,  # measured 2.5e-5: a padded row against the row alone, logits up to 40
    "jit": 1e-4,  # measured 6e-6: loss and weights of a compiled step against XLA's
    "accumulation": 2e-5,  # measured 5e-7: weights after accumulated gradients against one batch
}

BFLOAT16 = {
    "outputs": 0.1,  # measured 0.03, relative to the largest output in float32
}

FLOAT16 = {
    "outputs": 0.02,  # measured 0.004, relative to the largest output in float32
}
