"""Where a model trains: one device, several replicas of one process, or several workers."""

import contextlib
import json
import os
from typing import Any

import tensorflow as tf

from zoo.errors import ConfigError

__all__ = ["MultiWorkerStrategy", "is_chief", "make_strategy", "worker_count"]

_TF_CONFIG_EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
)


class MultiWorkerStrategy(tf.distribute.MultiWorkerMirroredStrategy):
    """MultiWorkerMirroredStrategy whose `reduce` accepts what Keras 3 hands it.

    Keras reduces scalar logs over axis 0, and passes nested per-replica values.
    """

    def reduce(self, reduce_op: Any, value: Any, axis: int | None = None) -> Any:
        reduce_one = super().reduce

        def reduce_leaf(leaf: Any) -> Any:
            local = self.experimental_local_results(leaf)[0]
            return reduce_one(reduce_op, leaf, axis=axis if local.shape.rank else None)

        return tf.nest.map_structure(reduce_leaf, value)


def make_strategy(kind: str) -> tf.distribute.Strategy:
    """Returns the strategy that a recipe names.

    Replicas train as one device does on the whole batch, but for dropout: its seed is the same on
    all of them, so each draws one mask for its own rows.

    Args:
        kind: "auto" (all GPUs mirrored where there are several, else one device), "cpu",
            "mirrored" (all GPUs, or all logical CPUs where there is no GPU), or "multi_worker"
            (the workers of TF_CONFIG; must come before anything else starts the runtime).

    Raises:
        ConfigError: TF_CONFIG is missing or wrong, or the runtime has been started already.
    """
    if kind == "multi_worker":
        _check_cluster()
        return MultiWorkerStrategy()
    if kind == "cpu":
        if tf.config.list_physical_devices("GPU"):
            return tf.distribute.OneDeviceStrategy("/cpu:0")
        return tf.distribute.get_strategy()
    gpus = [device.name for device in tf.config.list_logical_devices("GPU")]
    if kind == "auto":
        return (
            tf.distribute.MirroredStrategy(gpus) if len(gpus) > 1 else tf.distribute.get_strategy()
        )
    return tf.distribute.MirroredStrategy(
        gpus or [device.name for device in tf.config.list_logical_devices("CPU")]
    )


def scope(strategy: tf.distribute.Strategy) -> contextlib.AbstractContextManager:
    """Returns the strategy's scope; nothing for the default one, so that Keras sees no strategy."""
    if strategy is tf.distribute.get_strategy() and strategy.num_replicas_in_sync == 1:
        return contextlib.nullcontext()
    return strategy.scope()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the run folder."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    cluster = resolver.cluster_spec().as_dict()
    if "chief" in cluster:
        return resolver.task_type == "chief"
    return resolver.task_type == "worker" and resolver.task_id == 0


def worker_count(strategy: tf.distribute.Strategy) -> int:
    """Returns how many processes train together."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return 1
    cluster = resolver.cluster_spec().as_dict()
    return len(cluster.get("chief", [])) + len(cluster.get("worker", []))


def _check_cluster() -> None:
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text or "{}")
        workers = config["cluster"]["worker"] + config["cluster"].get("chief", [])
        task = config["task"]["type"], int(config["task"]["index"])
    except (ValueError, KeyError, TypeError):
        raise ConfigError(
            f"strategy multi_worker: TF_CONFIG is {text!r}, expected the cluster and this worker's "
            f"place in it, such as {_TF_CONFIG_EXAMPLE}."
        ) from None
    if not workers or task[1] >= len(config["cluster"].get(task[0], [])):
        raise ConfigError(f"strategy multi_worker: TF_CONFIG's task {task} is not in its cluster.")
    from tensorflow.python.eager import context

    if context.context()._initialized:
        raise ConfigError(
            "strategy multi_worker: TensorFlow's runtime has been started already, and workers can "
            "only be joined before that: call train() first in the process, or run `zoo train`."
        )
