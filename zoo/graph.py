"""The one place where model code asks the backend for a compiled function."""

from collections.abc import Callable
from typing import Any

import keras


def as_graph(function: Callable[..., Any]) -> Callable[..., Any]:
    """A `tf.function` of `function` under TensorFlow; elsewhere the function as it is."""
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, reduce_retracing=True)
