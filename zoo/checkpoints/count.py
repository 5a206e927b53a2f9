"""Counting parameters of models of any size without allocating one."""

import math
from typing import Any

from zoo.backbones.config import TransformerConfig
from zoo.checkpoints.deferred import without_values
from zoo.checkpoints.weights import variables_by_path


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
    from zoo.tasks import TaskModel

    with without_values():
        model = TaskModel(config, task, **given)
    return {path: tuple(variable.shape) for path, variable in variables_by_path(model).items()}
