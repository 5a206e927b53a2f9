"""What happens around the steps of `model.fit`: rounds, checkpoints, the best weights, stopping."""

import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from zoo.errors import ZooError
from zoo.training.checkpoint import Progress, collect_state, replace_file, write_state
from zoo.training.recipe import TrainingRecipe

__all__ = ["InterruptedTrainingError", "Plan", "TrainingLoop", "is_better"]


class InterruptedTrainingError(ZooError):
    """Training was asked to stop and has saved its state."""


class Plan:
    """How a run of updates is cut into rounds.

    Args:
        training: The training section of a recipe.
        updates_per_pass: Batches in one pass over the data.
    """

    def __init__(self, training: TrainingRecipe, updates_per_pass: int) -> None:
        self.updates_per_pass = updates_per_pass
        self.parts = training.gradient_accumulation_steps
        if training.epochs is not None:
            self.updates = training.epochs * updates_per_pass
            default = updates_per_pass
        else:
            self.updates = training.steps
            default = max(1, training.steps // 10)
        self.per_round = min(training.validate_every or default, self.updates)
        self.rounds = -(-self.updates // self.per_round)

    def end(self, number: int) -> int:
        """Returns the update at which a round (counted from 0) ends."""
        return min((number + 1) * self.per_round, self.updates)


class TrainingLoop(keras.callbacks.Callback):
    """Counts updates, ends rounds, writes checkpoints, keeps the best weights and the history.

    All of it is in `progress` and the variables of the model, so that a resumed run goes on as if
    it had never stopped.

    Args:
        training: The training section of the recipe.
        plan: The rounds.
        schedule: Update (the first is 0) -> learning rate.
        progress: Where the run stands; changed in place.
        folder: The run folder, None for a worker that writes nothing.
        restore_metrics: Sets the running means of a round that a checkpoint cut in two.
        stoppable: Save and stop at SIGINT and SIGTERM.
        on_round: Each is called with the progress after each round.
    """

    def __init__(
        self,
        training: TrainingRecipe,
        plan: Plan,
        schedule: Callable[[int], Any],
        progress: Progress,
        folder: Path | None,
        restore_metrics: Callable[[], None] | None = None,
        stoppable: bool = True,
        on_round: Sequence[Callable[[Progress], None]] = (),
    ) -> None:
        super().__init__()
        self.training, self.plan, self.schedule = training, plan, schedule
        self.progress, self.folder = progress, folder
        self.restore_metrics, self.on_round = restore_metrics, on_round
        self.stoppable = stoppable and threading.current_thread() is threading.main_thread()
        self.asked_to_stop: str | None = None
        self._trace_every = max(1, plan.updates // 400)
        self._previous_handlers: dict[int, Any] = {}
        self._clock = time.monotonic()
        self._stop = False

    @property
    def checkpoint_path(self) -> Path | None:
        return self.folder and self.folder / "checkpoints" / "last" / "state.npz"

    def on_train_begin(self, logs: dict | None = None) -> None:
        self._clock = time.monotonic()
        if self.stoppable:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous_handlers[number] = signal.signal(number, self._ask_to_stop)

    def release_signals(self) -> None:
        """Puts the signal handlers back that were in place before training."""
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers.clear()

    def _ask_to_stop(self, number: int, frame: Any) -> None:
        if self.asked_to_stop:
            self.release_signals()  # the second time it is meant at once
            raise KeyboardInterrupt
        self.asked_to_stop = signal.Signals(number).name

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        if self.restore_metrics is not None:
            self.restore_metrics()
            self.restore_metrics = None

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        progress, parts = self.progress, self.plan.parts
        progress.step_in_round += 1
        if progress.step_in_round % parts:
            return
        progress.update += 1
        ends = progress.update >= self.plan.end(progress.round)
        if progress.update % self._trace_every == 0 or ends:
            self._trace(float(logs["loss"]))
        if ends:
            self.model.stop_training = True  # ends Keras' epoch; `on_epoch_end` goes on
            return
        every = self.training.checkpoint.every_steps
        if self.asked_to_stop or (every and progress.update % every == 0):
            self.save()
            self._leave_if_asked()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        progress = self.progress
        now = time.monotonic()
        row = {
            "round": progress.round + 1,
            "epoch": round(progress.update / self.plan.updates_per_pass, 4),
            "update": progress.update,
            "learning_rate": progress.trace[-1][2],
            "seconds": round(progress.seconds + now - self._clock, 3),
        }
        row |= {name: float(value) for name, value in (logs or {}).items()}
        progress.history.append(row)
        progress.round += 1
        progress.step_in_round = 0
        progress.window = [0, 0.0]
        self._keep_best(row)
        self._stop = self._is_patience_over(row)
        progress.finished = self._stop or progress.update >= self.plan.updates
        self.model.stop_training = progress.finished
        every = self.training.checkpoint.every_rounds
        if progress.finished or self.asked_to_stop or progress.round % every == 0:
            self.save()
        for write in self.on_round:
            write(progress)
        if not progress.finished:
            self._leave_if_asked()

    def save(self) -> None:
        """Writes the checkpoint that `resume` begins from."""
        now = time.monotonic()
        self.progress.seconds += now - self._clock
        self._clock = now
        state = collect_state(self.model)
        if self.folder is not None:
            write_state(self.checkpoint_path, state, self.progress)

    def _leave_if_asked(self) -> None:
        if self.asked_to_stop:
            raise InterruptedTrainingError(
                f"Stopped by {self.asked_to_stop} after update {self.progress.update} of "
                f"{self.plan.updates}; the state is in {self.checkpoint_path}."
            )

    def _trace(self, mean_loss: float) -> None:
        """Adds the mean loss since the last row, from the running mean of the round."""
        progress = self.progress
        steps, total = progress.step_in_round, mean_loss * progress.step_in_round
        seen, before = progress.window
        learning_rate = float(self.schedule(progress.update - 1))
        loss = (total - before) / max(steps - seen, 1)
        progress.trace.append([progress.update, loss, learning_rate])
        progress.window = [steps, total]

    def _keep_best(self, row: dict[str, Any]) -> None:
        rule, progress = self.training.best, self.progress
        metric = rule.metric
        if metric == "val_loss" and metric not in row:
            metric = "loss"  # there are no validation examples
        value = row[metric]
        best = progress.best and progress.best["value"]
        if is_better(value, best, metric, rule.mode):
            progress.best = {"metric": metric, "value": value, "round": progress.round}
            if self.folder is not None:
                path = self.folder / "checkpoints" / "best" / "model.weights.h5"
                replace_file(path, self.model.save_weights)

    def _is_patience_over(self, row: dict[str, Any]) -> bool:
        rule, waited = self.training.early_stopping, self.progress.waited
        if rule is None:
            return False
        value = row[rule.metric]
        if is_better(value, waited["best"], rule.metric, rule.mode, rule.min_delta):
            waited |= {"best": value, "rounds": 0}
        else:
            waited["rounds"] += 1
        return waited["rounds"] >= rule.patience


def is_better(
    value: float, best: float | None, metric: str, mode: str = "auto", min_delta: float = 0.0
) -> bool:
    """Whether a metric's value is better than the best so far ("auto": losses are better low)."""
    if best is None:
        return True
    if mode == "auto":
        low = metric.endswith(("loss", "error", "perplexity"))
        mode = "min" if low else "max"
    return value < best - min_delta if mode == "min" else value > best + min_delta
