"""What can be exported: the folder of a run, or a Hugging Face checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.errors import ExportError


@dataclass(frozen=True)
class Source:
    """A model to export, and what its bundle says of where it came from."""

    model: Any
    tokenizer: Any
    name: str
    facts: dict[str, Any]
    max_new_tokens: int | None = None
    recipe: Any = None


def open_source(folder: Path, task: str | None) -> Source:
    """The model of a run's folder or of a Hugging Face checkpoint.

    A folder of sentence-transformers is for sentence-similarity unless another task is given.

    Raises:
        ExportError: It is a bundle.
        ZooError: It is neither, or cannot be read.
    """
    if (folder / "manifest.json").is_file():
        raise ExportError(f"{folder} is a bundle already; give the folder of a run or checkpoint")
    sentences = (folder / "modules.json").is_file()
    found = sentences or (folder / "config.json").is_file()
    if found and not (folder / "recipe.yaml").is_file():
        import zoo

        task = task or ("sentence-similarity" if sentences else None)
        model = zoo.from_pretrained(folder, task=task)
        model_type = model.pretrained["model_type"]
        facts = {"checkpoint": folder.resolve().name, "model_type": model_type}
        return Source(model, model.tokenizer, folder.resolve().name, facts)
    if task is not None:
        raise ExportError(f"--task goes with a checkpoint; {folder} is a run, which has its task")
    from zoo.training.run import Run

    run = Run.load(folder)
    most = run.recipe.evaluation.generation.max_new_tokens
    return Source(run.model, run.tokenizer, run.recipe.name, source_of(run), most, run.recipe)


def source_of(trained: Any) -> dict[str, Any]:
    """Where a bundle came from, for its manifest."""
    from zoo.config import to_mapping

    return {
        "recipe": to_mapping(trained.recipe),
        "data_sha256": trained.metrics.get("data_sha256"),
        "metrics": {
            split: {
                k: v for k, v in trained.metrics[split].items() if k not in ("groups", "seconds")
            }
            for split in ("validation", "test")
            if split in trained.metrics
        },
    }
