"""`train`: from a recipe to a run folder, around `model.fit`."""

import contextlib
import importlib.metadata
import logging
import platform
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from zoo.config import nearest, to_mapping
from zoo.errors import ConfigError, RunError
from zoo.training.build import Parts, build_model, make_batches, prepare
from zoo.training.checkpoint import Progress, apply_state, read_state
from zoo.training.display import Display
from zoo.training.events import EventLog
from zoo.training.feed import Feed
from zoo.training.loop import InterruptedTrainingError, Plan, TrainingLoop
from zoo.training.losses import TokenCrossentropy
from zoo.training.optimizer import build_optimizer
from zoo.training.recipe import Recipe, TrainingRecipe
from zoo.training.run import METRICS, RECIPE, WEIGHTS, Run
from zoo.training.strategy import is_chief, make_strategy, scope

__all__ = ["InterruptedTrainingError", "train"]

log = logging.getLogger(__name__)


def train(recipe: Recipe, out: str | Path, resume: bool = False, quiet: bool = False) -> Run:
    """Trains a model and measures it.

    Training that is stopped (Ctrl-C, SIGTERM, a crash) goes on from its last checkpoint with
    `resume=True`, and then ends with the weights of a run that was never stopped: the checkpoint
    holds the weights, the optimizer's state, the seeds of dropout and the position in the data,
    whose order depends on the seed and the pass alone. (Bit for bit, as far as the machine repeats
    its own sums; some GPU kernels do not.)

    Args:
        recipe: What to train.
        out: The run folder. It must not exist, unless `resume`.
        resume: Go on from the folder's last checkpoint, or begin where there is none.
        quiet: Show no progress.

    Returns:
        The run, with its best weights.

    Raises:
        ConfigError: The recipe cannot be trained as it is.
        RunError: The folder exists already, or does not belong to this recipe.
        InterruptedTrainingError: Training was asked to stop; its state is saved.
    """
    run = Run(out)
    training = recipe.training
    strategy = make_strategy(training.strategy)  # first: workers are joined before the runtime
    _check_combination(recipe, strategy.num_replicas_in_sync)
    chief = is_chief(strategy)
    # Other workers do not look whether the folder is new: the chief may be writing it already.
    resumes = _check_folder(run, recipe, resume) if chief or resume else False
    if resumes and (run.folder / METRICS).is_file():
        return Run.load(out)
    keras.utils.set_random_seed(training.seed)
    parts = prepare(recipe, run.tokenizer if resumes else None)
    if chief and not resumes:
        run.begin(recipe, parts.config, parts.labels, parts.tokenizer)
    with _precision(training.precision):
        progress = _fit(run, recipe, parts, strategy, resumes, chief, quiet)
    if chief:
        _finish(run, recipe, parts, progress, strategy)
    return run


def _check_combination(recipe: Recipe, replicas: int) -> None:
    training = recipe.training
    if replicas > 1 and training.gradient_accumulation_steps > 1:
        raise ConfigError(
            "training.gradient_accumulation_steps > 1 does not go with several replicas: Keras "
            "cannot update variables under a condition there. Use 1, with a smaller batch_size."
        )
    if replicas > 1 and training.jit_compile:
        raise ConfigError(
            "training.jit_compile does not go with several replicas: their gradients are summed "
            "outside of XLA. Set it to false."
        )
    if training.label_smoothing and recipe.task == "question-answering":
        raise ConfigError("training.label_smoothing: question-answering has no classes to smooth.")


def _check_metrics(recipe: Recipe, validated: bool) -> None:
    """Finds out before training whether the metrics that decide will be measured."""
    from zoo.tasks import TASKS

    outputs = TASKS[recipe.task].outputs
    known = ["loss", "accuracy"]
    if len(outputs) > 1:
        known = ["loss", *(f"{name}_{fact}" for name in outputs for fact in ("accuracy", "loss"))]
    known += [f"val_{name}" for name in known] if validated else []
    rules = {"best": recipe.training.best, "early_stopping": recipe.training.early_stopping}
    for name, rule in rules.items():
        # Without validation examples, the best weights are those of the lowest training loss.
        forgiven = name == "best" and rule.metric == "val_loss"
        if rule is not None and rule.metric not in known and not forgiven:
            raise ConfigError(
                f"training.{name}.metric: {rule.metric!r} is not measured; "
                f"{nearest(rule.metric, known)}"
            )


def _check_folder(run: Run, recipe: Recipe, resume: bool) -> bool:
    """Returns whether there is a run to go on with."""
    folder = run.folder
    if not (folder / RECIPE).is_file():
        if folder.is_dir() and any(folder.iterdir()) and not resume:
            raise RunError(f"{folder} exists and is not empty: choose another folder.")
        return False
    if not resume:
        raise RunError(
            f"{folder} holds a run already: resume it (--resume), or choose another folder."
        )
    differences = list(_differences(to_mapping(run.recipe), to_mapping(recipe)))
    if differences:
        raise RunError(
            f"{folder} was trained with another recipe and cannot be resumed with this one:\n"
            + "\n".join(f"  {line}" for line in differences)
        )
    return True


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield f"{path}: {old!r} in the folder, {new!r} now"


@contextlib.contextmanager
def _precision(policy: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _fit(
    run: Run,
    recipe: Recipe,
    parts: Parts,
    strategy: Any,
    resumes: bool,
    chief: bool,
    quiet: bool,
) -> Progress:
    training = recipe.training

    def passes_from(number: int) -> Any:
        settings = {"shuffle_seed": training.seed, "start_epoch": number, "repeat": True}
        return make_batches(recipe, parts, "train", **settings)

    feed = Feed(passes_from, training.gradient_accumulation_steps)
    validation = None
    if parts.examples["validation"]:
        # Endless as well: under a strategy Keras takes one batch more before it begins.
        validation = Feed(lambda number: make_batches(recipe, parts, "validation", repeat=True))
    _check_metrics(recipe, validated=validation is not None)
    plan = Plan(training, feed.batches_per_pass)
    with scope(strategy):
        model = build_model(recipe, parts.config, parts.labels)
        optimizer = build_optimizer(training, plan.updates)
        model.compile(
            optimizer=optimizer,
            loss=_losses(model, training),
            jit_compile=training.jit_compile,
        )
        model.optimizer.build(model.trainable_variables)
    progress, state = _restore(run, model, chief) if resumes else (Progress(), {})
    _check_data(run, parts, chief and not resumes)
    if progress.finished:
        return progress
    if progress.step_in_round or strategy is not tf.distribute.get_strategy():
        # Metrics are made on first use, which is too late to set them, and under a strategy Keras
        # would make them from a batch whose ids it has turned into floats.
        with scope(strategy):
            model._symbolic_build(data_batch=feed.example())
    loop = TrainingLoop(
        training,
        plan,
        optimizer.schedule,
        progress,
        run.folder if chief else None,
        restore_metrics=(lambda: apply_state(model, state)) if progress.step_in_round else None,
        stoppable=training.strategy != "multi_worker",
        on_round=[run.write_history, EventLog(run.folder / "tensorboard")] if chief else [],
    )
    callbacks: list[keras.callbacks.Callback] = [loop]
    display = Display(plan, progress)
    if chief and not quiet:
        callbacks.append(display)
    try:
        model.fit(
            feed.dataset(strategy, progress.update),
            initial_epoch=progress.round,
            epochs=plan.rounds,
            steps_per_epoch=plan.per_round * plan.parts,
            validation_data=validation and validation.dataset(strategy),
            validation_steps=validation and validation.batches_per_pass,
            callbacks=callbacks,
            verbose=0,
            shuffle=False,
        )
    finally:
        display.close()
        loop.release_signals()
    return progress


def _losses(model: Any, training: TrainingRecipe) -> dict[str, keras.losses.Loss]:
    return {name: TokenCrossentropy(training.label_smoothing) for name in model.spec.outputs}


def _restore(run: Run, model: Any, chief: bool) -> tuple[Progress, dict[str, Any]]:
    """Sets the model's state from the last checkpoint, if the run came that far."""
    checkpoints = run.folder / "checkpoints"
    for leftover in checkpoints.glob("*/.*") if chief else ():
        leftover.unlink(missing_ok=True)  # of a process that was killed while it wrote
    path = checkpoints / "last" / "state.npz"
    if not path.is_file():
        log.warning("%s has no checkpoint yet: training begins anew.", run.folder)
        return Progress(), {}
    state, progress = read_state(path)
    apply_state(model, state, metrics=False)
    return progress, state


def _check_data(run: Run, parts: Parts, write: bool) -> None:
    path = run.folder / "data.json"
    if write:
        counts = {split: len(examples) for split, examples in parts.examples.items()}
        run.write_json("data.json", {"sha256": parts.data_hash, "examples": counts})
    elif path.is_file() and parts.data_hash not in path.read_text(encoding="utf-8"):
        raise RunError(
            f"The data have changed since {run.folder} was begun (SHA-256 now "
            f"{parts.data_hash[:12]}...): a resumed run would not be the same. Use another folder."
        )


def _finish(run: Run, recipe: Recipe, parts: Parts, progress: Progress, strategy: Any) -> None:
    """Copies the best weights, measures them and writes metrics.json, which ends a run."""
    from zoo.evaluation import evaluate_run

    best = run.folder / "checkpoints" / "best" / WEIGHTS
    temporary = run.folder / f".{WEIGHTS}"
    shutil.copyfile(best, temporary)
    temporary.replace(run.folder / WEIGHTS)
    metrics: dict[str, Any] = {}
    for split in ("validation", "test"):
        examples = parts.examples[split][: recipe.evaluation.limit]
        if examples:
            begin = time.monotonic()
            metrics[split] = evaluate_run(run, examples)
            metrics[split]["seconds"] = round(time.monotonic() - begin, 3)
    row = progress.history[-1]
    run.write_json(
        METRICS,
        {
            **metrics,
            "best": progress.best,
            "updates": progress.update,
            "epochs": row["epoch"],
            "training_seconds": round(progress.seconds, 3),
            "updates_per_second": round(progress.update / max(progress.seconds, 1e-9), 4),
            "replicas": strategy.num_replicas_in_sync,
            "parameters": run.model.count_params(),
            "data_sha256": parts.data_hash,
            "examples": {split: len(examples) for split, examples in parts.examples.items()},
            "versions": _versions(),
        },
    )


def _versions() -> dict[str, str]:
    names = ("keras-text-zoo", "keras", "tensorflow", "tensorflow-cpu", "tokenizers", "numpy")
    versions = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
