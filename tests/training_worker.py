"""A tiny training task, and a process that trains it: killed, resumed, mirrored, one of several."""

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WORDS = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "hundred",
    "thousand",
]


def write_data(folder: Path, count: int = 24) -> Path:
    """Rows of one to six words, so that replicas hold very different numbers of labels."""
    path = folder / "words.jsonl"
    lines = []
    for index in range(count):
        words = [WORDS[(index * 5 + place) % len(WORDS)] for place in range(1 + index % 6)]
        tags = ["B-LONG" if len(word) > 4 else "O" for word in words]
        lines.append(json.dumps({"tokens": words, "tags": tags, "size": len(words)}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def recipe_mapping(data: Path, dropout: float = 0.2, **training: Any) -> dict[str, Any]:
    """A recipe of one small layer: two passes of six updates."""
    return {
        "name": "words",
        "task": "token-classification",
        "data": {"train": str(data), "validation": str(data)},
        "tokenizer": {"kind": "char"},
        "model": {
            "architecture": "encoder",
            "hidden_dim": 16,
            "num_layers": 1,
            "num_heads": 2,
            "dropout": dropout,
        },
        "training": {
            "epochs": 2,
            "batch_size": 4,
            "max_length": 48,
            "buckets": None,
            "seed": 7,
            "optimizer": {"learning_rate": 0.01, "clip_norm": 0.5},
            "schedule": {"kind": "cosine", "warmup_steps": 3},
            **training,
        },
        "evaluation": {"group": "size"},
    }


def start(arguments: list[str], **environment: str) -> subprocess.Popen:
    """Starts this file as a process of its own."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1"}
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), *arguments],
        env={**os.environ, **quiet, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen, timeout: float = 150) -> tuple[str, str]:
    """Waits for a process and returns what it wrote; kills it when it takes too long."""
    try:
        return process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--logical-cpus", type=int, default=0)
    parser.add_argument("--signal-at", type=int, default=0, help="update at which to send ...")
    parser.add_argument("--signal", default="SIGKILL")
    parser.add_argument("--weights", type=Path, help="write this process's final weights")
    options = parser.parse_args()

    import numpy as np
    import tensorflow as tf

    if options.logical_cpus:
        cpu = tf.config.list_physical_devices("CPU")[0]
        devices = [tf.config.LogicalDeviceConfiguration()] * options.logical_cpus
        tf.config.set_logical_device_configuration(cpu, devices)

    from zoo.training import loop, trainer
    from zoo.training.load import recipe_from_mapping

    models = []
    build_model = trainer.build_model
    trainer.build_model = lambda *parts: models.append(build_model(*parts)) or models[-1]
    count_batch = loop.TrainingLoop.on_train_batch_end

    def count_and_signal(self: Any, batch: int, logs: dict | None = None) -> None:
        if options.signal_at and self.progress.update + 1 == options.signal_at:
            os.kill(os.getpid(), getattr(signal, options.signal))
        count_batch(self, batch, logs)

    loop.TrainingLoop.on_train_batch_end = count_and_signal
    recipe = recipe_from_mapping(json.loads(options.recipe.read_text(encoding="utf-8")))
    try:
        run = trainer.train(recipe, options.out, resume=options.resume, quiet=True)
    except trainer.InterruptedTrainingError as error:
        print(f"interrupted: {error}")
        return
    if options.weights:
        replicas: dict[str, Any] = {}
        for index, variable in enumerate(models[0].trainable_variables):
            values = getattr(variable.value, "values", (variable.value,))
            for replica, value in enumerate(values):
                replicas[f"{replica}/{index:03d}"] = np.array(value)
        np.savez(options.weights, **replicas)
    print(json.dumps(run.history if run.folder.is_dir() else []))


if __name__ == "__main__":
    main()
