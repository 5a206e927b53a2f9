"""Batches for `model.fit`: a stream from any update on, cut into steps and replicas."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from zoo.errors import DataError
from zoo.training.losses import IGNORED

__all__ = ["Feed", "split_batch"]


class Feed:
    """Whole batches of a data set, as `model.fit` shall see them.

    One batch of the data is one update of the model. It is computed in `parts` steps
    (gradient accumulation), and each of them by all replicas; where rows are missing, copies whose
    labels do not count make all replicas hold equally many. The position in the stream is the
    number of the update alone, so a run that is resumed sees what an uninterrupted one sees.

    Args:
        make: Number of the first pass -> endless data set of (x, y), with `steps_per_epoch` batches
            to a pass and the same batches for the same pass.
        parts: Accumulation steps per batch. More than one adds weights to (x, y), so that the mean
            over parts equals the mean over the labels of the whole batch.
    """

    def __init__(self, make: Callable[[int], tf.data.Dataset], parts: int = 1) -> None:
        self.make = make
        self.parts = parts
        self._first = make(0)
        self.batches_per_pass = int(self._first.steps_per_epoch)
        if not isinstance(self._first.element_spec, tuple):
            raise DataError("The examples have no labels, which training needs.")

    def example(self) -> tuple:
        """Returns one whole batch."""
        return next(iter(self._first))

    def dataset(self, strategy: tf.distribute.Strategy, update: int = 0) -> Any:
        """Returns the stream from batch `update` on, as `model.fit` takes it under `strategy`."""
        number, offset = divmod(update, self.batches_per_pass)
        batches = self.make(number) if number else self._first
        if offset:
            batches = batches.skip(offset)
        replicas = strategy.num_replicas_in_sync
        if replicas == 1 and strategy is tf.distribute.get_strategy():
            return self._cut(batches, 1, 0, 1)

        def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
            share = replicas // context.num_input_pipelines
            return self._cut(batches, replicas, context.input_pipeline_id * share, share)

        return strategy.distribute_datasets_from_function(of_worker)

    def _cut(
        self, batches: tf.data.Dataset, replicas: int, first: int, share: int
    ) -> tf.data.Dataset:
        """Returns the steps of each batch for the replicas from `first` on, one after another."""
        parts = self.parts
        if parts * replicas == 1:
            return batches

        def pieces(x: Any, y: Any) -> tf.data.Dataset:
            split = split_batch(x, y, parts, replicas)
            mine = tf.nest.map_structure(
                lambda value: _merge(value[:, first : first + share]), split
            )
            return tf.data.Dataset.from_tensor_slices(mine)

        return batches.flat_map(pieces).prefetch(2 * parts * share)


def split_batch(x: Any, y: Any, parts: int, replicas: int) -> tuple:
    """Cuts a batch into steps, and each step into replicas.

    Args:
        x: Structure of tensors [rows, ...].
        y: Structure of integer tensors [rows, ...].
        parts: Accumulation steps.
        replicas: Replicas that share a step.

    Returns:
        (x, y), or (x, y, weights) with several parts: tensors [parts, replicas, size, ...]. Added
        rows repeat the last one and have labels that do not count. Weights are
        parts * (labels that count in the part) / (labels that count in the batch).
    """
    rows = tf.shape(tf.nest.flatten(x)[0])[0]
    missing = -rows % (parts * replicas)

    def cut(value: tf.Tensor, extra: tf.Tensor) -> tf.Tensor:
        value = tf.concat([value, tf.repeat(extra, missing, axis=0)], axis=0)
        return tf.reshape(value, tf.concat([[parts, replicas, -1], tf.shape(value)[1:]], axis=0))

    x = tf.nest.map_structure(lambda value: cut(value, value[-1:]), x)
    y = tf.nest.map_structure(
        lambda value: cut(value, tf.fill(tf.shape(value[-1:]), tf.cast(IGNORED, value.dtype))), y
    )
    if parts == 1:
        return x, y

    def weigh(labels: tf.Tensor) -> tf.Tensor:
        counted = tf.reshape(tf.cast(labels != IGNORED, tf.float32), [parts, -1])
        share = tf.math.divide_no_nan(tf.reduce_sum(counted, axis=1), tf.reduce_sum(counted))
        return tf.broadcast_to(parts * share[:, None, None], tf.shape(labels)[:3])

    return x, y, tf.nest.map_structure(weigh, y)


def _merge(value: tf.Tensor) -> tf.Tensor:
    return tf.reshape(value, tf.concat([[-1], tf.shape(value)[2:]], axis=0))
