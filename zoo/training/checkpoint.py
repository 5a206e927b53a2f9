"""The state of a run in one file, from which training goes on exactly."""

import json
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zoo.errors import RunError

__all__ = ["Progress", "apply_state", "collect_state", "read_state", "replace_file", "write_state"]

_PROGRESS = "progress.json"


@dataclass
class Progress:
    """Where a run stands, beside its variables.

    Attributes:
        round: Rounds that are complete.
        update: Updates that are done.
        step_in_round: Steps done since the last complete round.
        seconds: Time spent in training.
        history: One row per complete round.
        trace: Rows (update, mean loss since the row before, learning rate).
        window: What the next row of `trace` needs: steps seen and their summed loss.
        best: The best value of the deciding metric, and its round.
        waited: Validations since the metric of early stopping got better, and its best value.
        finished: Nothing is left to train.
    """

    round: int = 0
    update: int = 0
    step_in_round: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    trace: list[list[float]] = field(default_factory=list)
    window: list[float] = field(default_factory=lambda: [0, 0.0])
    best: dict[str, Any] | None = None
    waited: dict[str, Any] = field(default_factory=lambda: {"rounds": 0, "best": None})
    finished: bool = False


def collect_state(model: Any, metrics: bool = True) -> dict[str, np.ndarray]:
    """Returns all variables of a compiled model, its optimizer built, by name.

    Weights, seeds of dropout, the optimizer's moments, counter and accumulators, and (`metrics`)
    the running means of the round. All workers must call it: some reads are collective.
    """
    return {name: _value(variable) for name, variable in _variables(model, metrics).items()}


def apply_state(model: Any, state: dict[str, np.ndarray], metrics: bool = True) -> None:
    """Sets all variables of a compiled model, strictly: same names, same shapes.

    Raises:
        RunError: Names what is missing, left over or of another shape.
    """
    variables = _variables(model, metrics)
    if not metrics:
        state = {name: value for name, value in state.items() if not name.startswith("metrics/")}
    problems = [f"{name} is missing" for name in variables if name not in state]
    problems += [f"{name} is not part of the model" for name in state if name not in variables]
    problems += [
        f"{name} has shape {state[name].shape}, the model {tuple(variable.shape)}"
        for name, variable in variables.items()
        if name in state and state[name].shape != tuple(variable.shape)
    ]
    if problems:
        raise RunError(
            f"The checkpoint does not fit the model ({len(problems)} problems): "
            + "; ".join(problems[:5])
        )
    for name, variable in variables.items():
        variable.assign(state[name])


def _variables(model: Any, metrics: bool) -> dict[str, Any]:
    groups = {"model": model.variables, "optimizer": model.optimizer.variables}
    if metrics:
        groups["metrics"] = model.metrics_variables
    return {
        f"{group}/{index:04d}/{_lasting_name(group, variable.path)}": variable
        for group, members in groups.items()
        for index, variable in enumerate(members)
    }


def _lasting_name(group: str, path: str) -> str:
    """Returns what does not depend on how many optimizers and seeds the process made before."""
    if group == "model" and "seed_generator" not in path:
        return path
    return path.rpartition("/")[2]


def _value(variable: Any) -> np.ndarray:
    return np.array(variable.numpy())


def write_state(path: Path, state: dict[str, np.ndarray], progress: Progress) -> None:
    """Writes a checkpoint; until it is whole, the one before stays in place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                archive.writestr(_PROGRESS, json.dumps(vars(progress)))
                for name, value in state.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, value, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_state(path: Path) -> tuple[dict[str, np.ndarray], Progress]:
    """Reads what `write_state` wrote.

    Raises:
        RunError: The file is missing or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            progress = Progress(**json.loads(archive.read(_PROGRESS)))
            state = {}
            for name in archive.namelist():
                if name == _PROGRESS:
                    continue
                with archive.open(name) as member:
                    value = np.lib.format.read_array(member, allow_pickle=False)
                state[name.removesuffix(".npy")] = value
    except FileNotFoundError:
        raise RunError(f"No checkpoint at {path}: there is nothing to resume.") from None
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise RunError(f"The checkpoint {path} cannot be read: {error}.") from None
    return state, progress


def replace_file(path: Path, write: Any) -> None:
    """Calls `write` with a temporary path beside `path`, then puts that file in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
