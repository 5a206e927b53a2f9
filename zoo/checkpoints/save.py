"""`save_pretrained`: a model becomes a folder that the reference library reads."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from zoo.checkpoints.facts import GENERATION, HARMLESS, Fact, Unused
from zoo.checkpoints.sentences import write_sentences
from zoo.checkpoints.tensors import write_tensors
from zoo.checkpoints.weights import stored_weights
from zoo.errors import ConfigError
from zoo.text.json_file import read_json, write_json

SHARD_BYTES = 5 * 1000**3
_NOT_KEPT = {"architectures", "dtype", "torch_dtype", "id2label", "label2id", "num_labels"}


def save_pretrained(
    model: Any,
    folder: str | os.PathLike[str],
    model_type: str | None = None,
    max_shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes config.json, generation_config.json, safetensors and the tokenizer's files.

    Args:
        model: A `zoo.TaskModel`.
        folder: Where to; it is made, and files of a model that it holds are replaced.
        model_type: The family to write; by default the one the model was read from.
        max_shard_bytes: Size of a safetensors file beyond which there are several.

    Raises:
        ConfigError: The family is not known, or cannot express the model's facts.
        DataError: It has no row for one of the model's weights.
    """
    from zoo.families import family

    model_type = model_type or (model.pretrained or {}).get("model_type")
    if model_type is None:
        raise ConfigError(
            "this model was not read from a checkpoint: give save_pretrained(model_type=...), "
            "the family whose form it has"
        )
    found = family(model_type)
    configs = written_configs(model, found)
    _refuse_other_head(found, model, configs["config.json"])
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        write_tensors(stored_weights(found, model), temporary, max_shard_bytes)
        for name, values in configs.items():
            write_json(temporary / name, values)
        if model.tokenizer is not None:
            model.tokenizer.save(temporary)
            name_inputs(model, temporary)
        if model.task == "sentence-similarity":
            write_sentences(model, temporary)
        folder.mkdir(exist_ok=True)
        for old in [*folder.glob("model*.safetensors"), *folder.glob("model*.index.json")]:
            old.unlink()
        for file in sorted(path for path in temporary.rglob("*") if path.is_file()):
            file.chmod(0o644)
            target = folder / file.relative_to(temporary)
            target.parent.mkdir(exist_ok=True)
            file.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def written_configs(model: Any, found: Any) -> dict[str, dict[str, Any]]:
    """What `config.json` says of a model and, where it generates, `generation_config.json`.

    Args:
        model: A `zoo.TaskModel`.
        found: The family to write.

    Raises:
        ConfigError: The family cannot express the model's facts or has no form for its task.
    """
    pretrained = model.pretrained or {}
    same = pretrained.get("model_type") == found.model_type
    own = pretrained.get("config", {}) if same else {}
    config = _as_spelled(found, model.config, own)
    different = unsaid(found, model.config, config)
    if different:
        raise ConfigError(
            f"a {found.model_type} model cannot say "
            + ", ".join(f"{name} = {getattr(model.config, name)!r}" for name in different)
        )
    unused = {name for item in found.items if isinstance(item, Unused) for name in item.names}
    kept = {
        key: value
        for key, value in own.items()
        if key in HARMLESS | unused and key not in _NOT_KEPT
    }
    config = {**kept, **config, "architectures": [found.form_of(model).architectures[0]]}
    config["dtype"] = config["torch_dtype"] = _stored_dtype(model)
    if model.labels is not None:
        config["id2label"] = {str(i): label for i, label in enumerate(model.labels)}
        config["label2id"] = {label: i for i, label in enumerate(model.labels)}
    if not model.generates:
        return {"config.json": config}
    generation = _generation(config, pretrained.get("generation", {}) if same else {})
    return {"config.json": config, "generation_config.json": generation}


def _refuse_other_head(found: Any, model: Any, values: dict[str, Any]) -> None:
    """The family's head must be the model's: a folder says little of it, and is read as if."""
    if model.task == "sentence-similarity":  # sentence-transformers' files say it
        return
    ours = {**model.spec.defaults, **model.head_facts}
    theirs = {**model.spec.defaults, **found.head_facts(found.form_of(model), values)}
    different = [name for name in ours if name != "dropout" and ours[name] != theirs[name]]
    if different:
        raise ConfigError(
            f"the head of a {found.model_type} model for {model.task} has "
            + ", ".join(f"{name} = {theirs[name]!r}, not {ours[name]!r}" for name in different)
            + ": build the model with TaskModel(..., head={...}) of these"
        )


def name_inputs(model: Any, folder: Path) -> None:
    """Takes segments from the inputs that a folder's `tokenizer_config.json` promises where the
    model tells none apart: the reference would feed them and fail.
    """
    path = folder / "tokenizer_config.json"
    values = read_json(path)
    names = values.get("model_input_names") or []
    if model.config.token_types > 1 or "token_type_ids" not in names:
        return
    values["model_input_names"] = [name for name in names if name != "token_type_ids"]
    write_json(path, values)


def unsaid(found: Any, config: Any, written: dict[str, Any] | None = None) -> list[str]:
    """The facts of `config` that a family's `config.json` does not give back."""
    written = found.encode(config) if written is None else written
    again = found.decode(written, f"config.json of a {found.model_type} model")
    return [
        name
        for name in vars(again)
        if getattr(again, name) != getattr(config, name) and "dropout" not in name
    ]


def family_of(model: Any) -> Any:
    """The family whose form a model has: the one it was read from, or the first that can say all
    its facts.

    Raises:
        ConfigError: There is none; the message says what the nearest lacks.
    """
    from zoo.families import family, model_types

    model_type = (model.pretrained or {}).get("model_type")
    if model_type is not None:
        return family(model_type)
    nearest: tuple[str, list[str]] | None = None
    for found in map(family, model_types()):
        if found.config is not type(model.config):
            continue
        try:
            found.form(model.task)
            lacking = unsaid(found, model.config)
        except (ConfigError, KeyError):  # no such task, or a value with no word for it
            continue
        if not lacking:
            return found
        if nearest is None or len(lacking) < len(nearest[1]):
            nearest = found.model_type, lacking
    said = ""
    if nearest is not None:
        facts = ", ".join(f"{name} = {getattr(model.config, name)!r}" for name in nearest[1])
        said = f"; the nearest, {nearest[0]}, cannot say {facts}"
    raise ConfigError(f"no family of Hugging Face can say this model's facts{said}")


def _as_spelled(found: Any, config: Any, own: dict[str, Any]) -> dict[str, Any]:
    """`config.json` of our facts, each in the words of the model's own file if it says the same:
    "gelu_new" stays so, and is not computed a bit differently under another name.
    """
    written = found.encode(config)
    for item in found.items:
        if not isinstance(item, Fact) or own.get(item.theirs) is None:
            continue
        value = getattr(config, item.ours)
        if item.read(own[item.theirs]) == value and written.get(item.theirs) == item.write(value):
            written[item.theirs] = own[item.theirs]
    return written


def _stored_dtype(model: Any) -> str:
    return str(model.dtype_policy.variable_dtype)


def _generation(config: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """What `config.json` says of generation, below what the model's own file for it said."""
    ids = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    named = {
        name: config[name] for name in (*ids, *sorted(GENERATION)) if config.get(name) is not None
    }
    return {**named, **own}
