"""TensorBoard's event files, written without the tensorboard package (needed to view them)."""

import socket
import time
from pathlib import Path
from typing import Any

import tensorflow as tf

from zoo.training.checkpoint import Progress

__all__ = ["EventLog"]

_FACTS = ("round", "epoch", "update", "seconds")


class EventLog:
    """Scalars of each round over updates: training in `train`, validation in `validation`.

    Keras' own callback calls `tf.summary.scalar`, which TensorFlow 2.21 no longer holds itself.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writers: dict[str, Any] = {}

    def __call__(self, progress: Progress) -> None:
        """Adds the last round of a run's progress."""
        row = dict(progress.history[-1])
        values: dict[str, dict[str, float]] = {"train": {}, "validation": {}}
        for name, value in row.items():
            if name.startswith("val_"):
                values["validation"][name.removeprefix("val_")] = value
            elif name not in _FACTS:
                values["train"][name] = value
        for part, scalars in values.items():
            if scalars:
                self._write(part, row["update"], scalars)

    def _write(self, part: str, update: int, scalars: dict[str, float]) -> None:
        now = time.time()
        if part not in self._writers:
            folder = self.folder / part
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"events.out.tfevents.{now:.6f}.{socket.gethostname()}"
            self._writers[part] = tf.io.TFRecordWriter(str(path))
            start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
            # A start makes TensorBoard drop what a run wrote after the checkpoint it resumes from.
            for event in (
                tf.compat.v1.Event(wall_time=now, file_version="brain.Event:2"),
                tf.compat.v1.Event(wall_time=now, step=update, session_log=start),
            ):
                self._writers[part].write(event.SerializeToString())
        entries = [
            tf.compat.v1.Summary.Value(tag=tag, simple_value=value)
            for tag, value in scalars.items()
        ]
        summary = tf.compat.v1.Summary(value=entries)
        event = tf.compat.v1.Event(wall_time=now, step=update, summary=summary)
        self._writers[part].write(event.SerializeToString())
        self._writers[part].flush()
