"""The model as exports need it: a task's, in one precision, on one device, with its tokenizer."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from export.errors import ExportError
from zoo.checkpoints.deferred import initialize, set_value, without_values
from zoo.tasks import TaskModel

COMPUTED = ("float32", "float16", "bfloat16")


def prepared(model: Any, dtype: str = "float32") -> TaskModel:
    """`model`, or a copy of it where its weights are mirrored or its arithmetic is not `dtype`.

    In a half precision weights and caches are of that type too; norms, softmax and outputs stay
    float32.

    Args:
        model: A `zoo.TaskModel`.
        dtype: One of `COMPUTED`.

    Raises:
        ExportError: It is no `zoo.TaskModel`, or a weight is too large for `dtype`.
    """
    if not isinstance(model, TaskModel):
        raise ExportError(
            f"expected a zoo.TaskModel, got {type(model).__name__}: "
            "build it with zoo.TaskModel(config, task=...)"
        )
    if dtype not in COMPUTED:
        raise ExportError(f"dtype = {dtype!r}: expected one of {list(COMPUTED)}")
    mirrored = any(isinstance(v.value, tf.distribute.DistributedValues) for v in model.weights)
    if not mirrored and model.dtype_policy.name == dtype:
        return model
    with without_values() as waiting:
        copy = type(model).from_config({**model.get_config(), "dtype": dtype})
    for target, source in zip(copy.weights, model.weights, strict=True):
        value = keras.ops.convert_to_numpy(source)
        _refuse_overflow(source.path, value, target.dtype)
        set_value(target, value)
    initialize(waiting)  # what is no weight
    copy.tokenizer, copy.pretrained = model.tokenizer, model.pretrained
    return copy


def _refuse_overflow(path: str, value: np.ndarray, dtype: str) -> None:
    if dtype != "float16" or not value.size:
        return
    largest, most = float(np.abs(value.astype("float32")).max()), float(np.finfo("float16").max)
    if largest > most:
        raise ExportError(
            f"the weight {path!r} holds {largest:g}, beyond float16's {most:g}: "
            "export the model in bfloat16 or float32"
        )


def tokenizer_of(model: TaskModel, tokenizer: Any) -> Any:
    """The tokenizer to put beside the graphs, None where there is none.

    Raises:
        ExportError: It knows ids that the model does not.
    """
    tokenizer = tokenizer if tokenizer is not None else model.tokenizer
    if tokenizer is not None and tokenizer.vocab_size > model.config.vocab_size:
        raise ExportError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model only "
            f"{model.config.vocab_size}: give the tokenizer the model was trained with"
        )
    return tokenizer
