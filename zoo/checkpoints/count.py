"""Counting parameters of models of any size without allocating one."""

import math
from typing import Any

import keras

from zoo.backbones.config import TransformerConfig


def count_parameters(config: TransformerConfig, task: str, **given: Any) -> int:
    """Parameters of a task's model, each once; nothing is allocated.

    Args:
        config: The facts.
        task: A name in `zoo.TASKS`.
        **given: Further arguments of `zoo.TaskModel`, such as labels.
    """
    return sum(math.prod(shape) for shape in weight_shapes(config, task, **given).values())


def weight_shapes(config: TransformerConfig, task: str, **given: Any) -> dict[str, tuple[int, ...]]:
    """Path below the model -> shape of every weight."""
    from keras.src.backend.common import global_state

    from zoo.tasks import TaskModel

    waiting = "uninitialized_variables"
    before = global_state.get_global_attribute(waiting)
    global_state.set_global_attribute(waiting, [])
    try:
        # Inside a stateless scope a variable only notes its shape; what waits for its values is
        # forgotten, or the next model's first call would allocate it.
        with keras.StatelessScope(initialize_variables=False):
            model = TaskModel(config, task, **given)
        return {
            variable.path.split("/", 1)[-1]: tuple(variable.shape)
            for variable in model.weights
            if "seed_generator" not in variable.path
        }
    finally:
        global_state.set_global_attribute(waiting, before)
