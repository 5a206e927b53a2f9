"""The model as exports need it: a task's, in float32, on one device, with its tokenizer."""

from typing import Any

import tensorflow as tf

from export.errors import ExportError
from zoo.tasks import TaskModel


def prepared(model: Any) -> TaskModel:
    """`model`, or a copy of it where its weights are mirrored or its arithmetic is not float32.

    Raises:
        ExportError: It is no `zoo.TaskModel`.
    """
    if not isinstance(model, TaskModel):
        raise ExportError(
            f"expected a zoo.TaskModel, got {type(model).__name__}: "
            "build it with zoo.TaskModel(config, task=...)"
        )
    mirrored = any(isinstance(v.value, tf.distribute.DistributedValues) for v in model.weights)
    if not mirrored and model.dtype_policy.name == "float32":
        return model
    copy = type(model).from_config({**model.get_config(), "dtype": "float32"})
    copy.set_weights(model.get_weights())
    copy.tokenizer = model.tokenizer
    return copy


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
