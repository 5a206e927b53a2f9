"""`from_pretrained`: a Hugging Face folder, or a model's name on the hub, becomes a model."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.checkpoints.deferred import initialize, without_values
from zoo.checkpoints.sentences import limit_tokenizer, read_sentences, transformer_folder
from zoo.checkpoints.tensors import TensorFolder
from zoo.checkpoints.weights import load_weights, with_stored_head
from zoo.errors import ConfigError, DataError
from zoo.text.files import read_json

log = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16", "float16", "mixed_bfloat16", "mixed_float16")
TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "source.spm",
)
WANTED = ("*.json", "*.safetensors", "*.model", "*.spm", "*.txt", "*.jinja")


def from_pretrained(
    folder: str | os.PathLike[str],
    task: str | None = None,
    dtype: str | None = None,
    labels: Sequence[str] | None = None,
) -> Any:
    """Reads a model with its weights and tokenizer.

    Args:
        folder: A folder with `config.json` and safetensors (one file or shards), or a name on the
            Hugging Face hub.
        task: A name in `zoo.TASKS`; by default what the file's `architectures` says. Where the file
            has no head for it, the head is new and has to be trained. For sentence-similarity a
            folder of sentence-transformers says how states are pooled.
        dtype: Keras' dtype policy: "float32" (the default), "bfloat16", "mixed_bfloat16", ...
        labels: Names of the classes; by default those of `id2label`.

    Returns:
        A `zoo.TaskModel`; its `tokenizer` is set where the folder has one.

    Raises:
        ConfigError: The model type or a value of its config is not supported.
        DataError: There is no such folder, or its weights are not those of the model.
    """
    from zoo.families import family
    from zoo.tasks import TaskModel

    policy = policy_of(dtype)
    whole = find_folder(folder)
    path = transformer_folder(whole)
    values = read_config(path)
    found = family(str(values.get("model_type")))
    config = found.decode(values, str(path / "config.json"))
    if found.head_by_file is not None:
        with TensorFolder(path) as tensors:
            config = with_stored_head(found, config, tensors)
    stored = _stored_task(found, values)
    task = task or found.task_of(values.get("architectures") or [])
    form = found.form(task, values)
    if form.labels and labels is not None and tuple(labels) != form.labels:
        form = found.form(task)
    complete = not form.rows or (stored is not None and form is found.form(stored, values))
    head = found.head_facts(form, values)
    sentences = None
    if task == "sentence-similarity":
        sentences = read_sentences(whole, config.output_dim)
        head = sentences.head if sentences else head
    wanted = None
    if task in ("text-classification", "token-classification"):
        wanted = list(labels or form.labels or labels_of(values))
    with without_values() as waiting:
        model = TaskModel(config, task, labels=wanted, head=head, dtype=policy)
    of_form = {**values, "architectures": list(form.architectures)}
    model.pretrained = {
        "model_type": found.model_type,
        "config": of_form,
        "generation": read_json(path / "generation_config.json"),
    }
    with TensorFolder(path) as tensors:
        left = load_weights(found, model, tensors, new_head=not complete)
    fresh = any(v._value is None and "/head/" in v.path for v in waiting)
    initialize(waiting)
    if left:
        log.info("%s: left out tensors of other tasks: %s", path, ", ".join(left))
    if fresh:
        log.warning("%s has no head for %s: the head is new, train it.", path, task)
    model.tokenizer = _tokenizer(path)
    if sentences is not None:
        model.pretrained["sentences"] = sentences.settings
        if model.tokenizer is not None:
            limit_tokenizer(model.tokenizer, sentences)
    return model


def _stored_task(found: Any, values: Mapping[str, Any]) -> str | None:
    try:
        return found.task_of(values.get("architectures") or [])
    except ConfigError:
        return None


def policy_of(dtype: str | None) -> str:
    """The dtype policy that is asked for, float32 where none is.

    Raises:
        ConfigError: It is not one of `DTYPES`.
    """
    if dtype is None:
        return "float32"
    if dtype not in DTYPES:
        raise ConfigError(f"dtype = {dtype!r}: expected one of {', '.join(map(repr, DTYPES))}")
    return dtype


def labels_of(values: Mapping[str, Any]) -> list[str]:
    """The names of the classes, from `id2label`, or by number where it is missing."""
    names = values.get("id2label")
    if not names:
        return [f"LABEL_{i}" for i in range(values.get("num_labels") or 2)]
    return [str(name) for _, name in sorted((int(i), name) for i, name in names.items())]


def read_config(path: Path) -> dict[str, Any]:
    """The folder's `config.json`.

    Raises:
        DataError: There is none.
    """
    if not (path / "config.json").is_file():
        raise DataError(f"{path} has no config.json: expected a Hugging Face model's folder")
    return read_json(path / "config.json")


def find_folder(name: str | os.PathLike[str]) -> Path:
    """A folder as it is, or the local copy of a model on the hub, fetched where a hub can be
    reached.

    Raises:
        DataError: There is neither.
    """
    path = Path(name)
    if path.is_dir():
        return path
    text = str(name)
    if path.exists() or text.count("/") > 1 or text.startswith((".", "/", "~")):
        raise DataError(f"{text}: no such folder; expected one with config.json and safetensors")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        raise DataError(
            f"{text}: no such folder; the hub needs huggingface_hub: pip install huggingface_hub"
        ) from None
    try:
        return Path(snapshot_download(text, allow_patterns=list(WANTED)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{text}: no such folder here, and it could not be fetched from the hub ({reason}). "
            "Give a folder that holds config.json and safetensors."
        ) from error


def _tokenizer(path: Path) -> Any:
    from zoo.text import Tokenizer

    if not any((path / name).is_file() for name in TOKENIZERS):
        return None
    return Tokenizer.load(path)


def preset_config(family: Any, name: str) -> Any:
    """Our config of a preset."""
    return family.decode(json.loads(json.dumps(dict(family.presets[name].config))), name)
