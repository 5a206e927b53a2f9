"""Batches for `model.fit`: an endless stream from any step on, cut into parts and replicas."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from zoo.errors import DataError
from zoo.training.losses import IGNORED

__all__ = ["Feed", "count_batches", "split_batch"]

Batch = tuple[Any, Any]


def count_batches(dataset: tf.data.Dataset) -> int:
    """Returns how many batches one pass over a dataset gives, counting where it does not say."""
    known = int(dataset.cardinality())
    return known if known >= 0 else sum(1 for _ in dataset)


class Feed:
    """Whole batches of a data set, as `model.fit` shall see them.

    One batch of the data is one update of the model. It is computed in `parts` steps
    (gradient accumulation), and each of them by all replicas; where rows are missing, copies whose
    labels do not count make all replicas hold equally many. The position in the stream is a step
    number alone, so a run that is resumed sees what an uninterrupted one sees.

    Args:
        make_pass: Pass number -> data set of (x, y) for that pass, always with equally many batches.
        parts: Accumulation steps per batch; more than one adds weights, so that the mean over
            parts equals the mean over the labels of the whole batch.
        repeat: Begin the next pass after one; else end.
    """

    def __init__(
        self, make_pass: Callable[[int], tf.data.Dataset], parts: int = 1, repeat: bool = True
    ) -> None:
        self.make_pass = make_pass
        self.parts = parts
        self.repeat = repeat
        first = make_pass(0)
        self.batches_per_pass = count_batches(first)
        if not self.batches_per_pass:
            raise DataError("The data hold no batch: there is no example that fits.")
        self.spec = first.element_spec

    def stream(self, update: int, replicas: int = 1) -> Iterator[list[tuple]]:
        """Yields, from batch number `update` on, the steps of each batch as `split_batch` does."""
        number, offset = divmod(update, self.batches_per_pass)
        while True:
            for batch in self.make_pass(number).skip(offset).as_numpy_iterator():
                yield split_batch(batch, self.parts, replicas)
            if not self.repeat:
                return
            number, offset = number + 1, 0

    def dataset(self, strategy: tf.distribute.Strategy, update: int = 0) -> Any:
        """Returns the stream from batch `update` on, as `model.fit` takes it under `strategy`."""
        replicas = strategy.num_replicas_in_sync
        if replicas == 1 and strategy is tf.distribute.get_strategy():
            return self._local(update, 1, range(1))

        def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
            share = replicas // context.num_input_pipelines
            first = context.input_pipeline_id * share
            return self._local(update, replicas, range(first, first + share))

        return strategy.distribute_datasets_from_function(of_worker)

    def _local(self, update: int, replicas: int, mine: range) -> tf.data.Dataset:
        def generate() -> Iterator[tuple]:
            for steps in self.stream(update, replicas):
                for step in steps:
                    for replica in mine:
                        yield step[replica]

        x_spec, y_spec = tf.nest.map_structure(_any_shape, self.spec)
        signature: tuple = (x_spec, y_spec)
        if self.parts > 1:
            signature += (tf.nest.map_structure(lambda _: tf.TensorSpec((None,)), y_spec),)
        return tf.data.Dataset.from_generator(generate, output_signature=signature).prefetch(
            2 * len(mine)
        )


def _any_shape(spec: tf.TensorSpec) -> tf.TensorSpec:
    return tf.TensorSpec((None,) * len(spec.shape), spec.dtype)


def split_batch(batch: Batch, parts: int, replicas: int) -> list[list[tuple]]:
    """Cuts a batch (x, y) of numpy arrays into steps, and each step into replicas.

    Returns:
        [step][replica] -> (x, y), or (x, y, weights) with several parts. All have equally many rows;
        added rows repeat the last one and have labels that do not count.
    """
    x, y = batch
    rows = len(tf.nest.flatten(x)[0])
    pieces = parts * replicas
    missing = -rows % pieces
    if missing:
        x = tf.nest.map_structure(lambda value: _pad_rows(value, missing, None), x)
        y = tf.nest.map_structure(lambda value: _pad_rows(value, missing, IGNORED), y)
    size = (rows + missing) // pieces
    totals = tf.nest.map_structure(_count, y)
    steps = []
    for part in range(parts):
        mine = slice(part * size * replicas, (part + 1) * size * replicas)
        shares = tf.nest.map_structure(lambda value, mine=mine: _count(value[mine]), y)
        step = []
        for replica in range(replicas):
            cut = slice(mine.start + replica * size, mine.start + (replica + 1) * size)
            piece = tuple(
                tf.nest.map_structure(lambda value, cut=cut: value[cut], side) for side in (x, y)
            )
            if parts > 1:
                weights = tf.nest.map_structure(
                    lambda share, total: np.full(size, parts * share / max(total, 1), "float32"),
                    shares,
                    totals,
                )
                piece += (weights,)
            step.append(piece)
        steps.append(step)
    return steps


def _pad_rows(values: np.ndarray, missing: int, fill: int | None) -> np.ndarray:
    extra = np.repeat(values[-1:], missing, axis=0)
    if fill is not None:
        extra = np.full_like(extra, fill)
    return np.concatenate([values, extra])


def _count(labels: np.ndarray) -> int:
    return int((labels != IGNORED).sum())
