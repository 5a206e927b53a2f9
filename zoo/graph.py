"""The one place where model code asks the backend for a compiled function."""

from collections.abc import Callable
from typing import Any

import keras

Signature = list[Any]
"""One entry per argument: (shape, dtype), or lists and tuples of them; None is a dynamic axis."""


def as_graph(function: Callable[..., Any], signature: Signature | None = None) -> Any:
    """A `tf.function` of `function` under TensorFlow; elsewhere the function as it is.

    Args:
        function: Takes and returns (nested) tensors.
        signature: Shapes to trace for, once; without it a new shape may mean a new trace.
    """
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    if signature is None:
        return tf.function(function, reduce_retracing=True, autograph=False)

    def spec(entry: Any) -> Any:
        if isinstance(entry, tuple) and isinstance(entry[-1], str):
            return tf.TensorSpec(*entry)
        return type(entry)(spec(part) for part in entry)

    return tf.function(function, input_signature=[spec(e) for e in signature], autograph=False)
