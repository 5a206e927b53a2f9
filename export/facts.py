"""What an exported folder says of the model beside its graphs, whatever the format."""

import importlib.metadata
from typing import Any, get_args

from serve.bundle.manifest import ProblemType, TokenizerSpec
from zoo import __version__
from zoo.tasks import TaskModel


def tokenizer_spec(model: TaskModel, tokenizer: Any) -> TokenizerSpec | None:
    """What tokenizer.json does not say."""
    if tokenizer is None:
        return None
    longest = model.config.max_length
    return TokenizerSpec(
        pad_token_id=model.config.pad_token_id,
        max_length=min(longest, getattr(tokenizer, "model_max_length", None) or longest),
        mask_token_id=tokenizer.mask_token_id,
    )


def problem_type(model: TaskModel) -> Any:
    """A `ProblemType`, or None where the checkpoint that a classifier was read from says none."""
    config = (model.pretrained or {}).get("config", {})
    found = config.get("problem_type") if model.task == "text-classification" else None
    return found if found in get_args(ProblemType) else None


def created_with(*packages: str) -> dict[str, str]:
    """Versions of this project and of `packages`."""
    return {"keras-text-zoo": __version__, **{name: _version(name) for name in packages}}


def _version(package: str) -> str:
    """The installed version; tensorflow may come as tensorflow-cpu."""
    for name in (package, f"{package}-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"
