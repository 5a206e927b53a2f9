"""Sentence embeddings in the form of sentence-transformers: `modules.json` and what it names.

https://sbert.net/docs/sentence_transformer/usage/custom_models.html
"""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError
from zoo.text.json_file import read_json, write_json

log = logging.getLogger(__name__)

MODULES = "modules.json"
SETTINGS = "config_sentence_transformers.json"
LENGTHS = ("bert", "roberta", "distilbert", "xlm-roberta", "camembert", "albert", "xlnet")
"""sentence_<name>_config.json holds the longest text; the first is written."""
POOLINGS = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens", "last": "lasttoken"}
"""Our pooling -> theirs, behind "pooling_mode_"."""
PACKAGE = "sentence_transformers.models"


@dataclass(frozen=True)
class Sentences:
    """What such a folder says beside the Transformer.

    Attributes:
        pooling: As `zoo.heads.pool` calls it.
        normalize: Vectors have length 1.
        max_length: Longest text in tokens, if limited.
        lowercase: Texts are lowered before they are tokenized.
        settings: `config_sentence_transformers.json`, kept as it is.
    """

    pooling: str = "mean"
    normalize: bool = True
    max_length: int | None = None
    lowercase: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def head(self) -> dict[str, Any]:
        """Facts of our head."""
        return {"pooling": self.pooling, "normalize": self.normalize}


def transformer_folder(folder: Path) -> Path:
    """Where the Transformer's files are: folders of older make have them in one of their own."""
    if (folder / "config.json").is_file():
        return folder
    for module in read_list(folder / MODULES):
        if _kind(module) == "Transformer":
            return folder / module.get("path", "")
    return folder


def read_sentences(folder: Path, width: int) -> Sentences | None:
    """The folder's sentence embedding; None where it says nothing of one.

    Args:
        folder: The folder that has `modules.json`.
        width: Of the Transformer's states.

    Raises:
        ConfigError: It has a module or setting that is not supported.
    """
    modules = read_list(folder / MODULES)
    if not modules:
        return None
    kinds = [_kind(module) for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ConfigError(
            f"{folder / MODULES}: modules {', '.join(kinds)} are not supported, expected "
            "Transformer, Pooling and perhaps Normalize"
        )
    settings = read_json(folder / SETTINGS)
    if settings.get("default_prompt_name") is not None:
        raise ConfigError(
            f"{folder / SETTINGS}: default_prompt_name = {settings['default_prompt_name']!r} is "
            "not supported: put the prompt before your texts and set it to null"
        )
    if settings.get("similarity_fn_name") not in (None, "cosine"):
        log.warning(
            "%s compares by %s; pairs are compared by cosine here",
            folder,
            settings["similarity_fn_name"],
        )
    limits = read_limits(transformer_folder(folder))
    return Sentences(
        pooling=read_pooling(folder / modules[1].get("path", "") / "config.json", width),
        normalize="Normalize" in kinds,
        max_length=limits.get("max_seq_length"),
        lowercase=bool(limits.get("do_lower_case")),
        settings=settings,
    )


def read_pooling(path: Path, width: int) -> str:
    """Our name of the pooling that a file describes.

    Raises:
        ConfigError: It is not one of ours, or of vectors of another width.
    """
    values = read_json(path)
    given = values.get("word_embedding_dimension", values.get("embedding_dimension", width))
    if given != width:
        raise ConfigError(f"{path}: word_embedding_dimension = {given}, expected {width}")
    prefix = "pooling_mode_"
    chosen = [
        key.removeprefix(prefix) for key, on in values.items() if key.startswith(prefix) if on
    ]
    if isinstance(values.get("pooling_mode"), str):  # the newer form
        chosen = [POOLINGS.get(values["pooling_mode"], values["pooling_mode"])]
    ours = {theirs: name for name, theirs in POOLINGS.items()}
    if len(chosen) != 1 or chosen[0] not in ours:
        raise ConfigError(
            f"{path}: pooling {', '.join(chosen) or 'nothing'} is not supported, expected one of "
            f"{', '.join(ours)}"
        )
    return ours[chosen[0]]


def read_limits(folder: Path) -> dict[str, Any]:
    """The longest text, and whether texts are lowered."""
    files = (folder / f"sentence_{name}_config.json" for name in LENGTHS)
    return next((read_json(file) for file in files if file.is_file()), {})


def limit_tokenizer(tokenizer: Any, sentences: Sentences) -> None:
    """Gives a tokenizer the longest text, and the lowering, that the folder asks for."""
    from tokenizers import normalizers

    if sentences.max_length is not None:
        tokenizer.model_max_length = sentences.max_length
    if sentences.lowercase:
        steps = [normalizers.Lowercase(), tokenizer.backend.normalizer]
        tokenizer.backend.normalizer = normalizers.Sequence([s for s in steps if s is not None])


def write_sentences(model: Any, folder: Path) -> None:
    """Writes what `read_sentences` reads, for sentence-transformers too."""
    names = ["Transformer", "Pooling", *(["Normalize"] if model.head.normalize else [])]
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{name}" if i else "",
            "type": f"{PACKAGE}.{name}",
        }
        for i, name in enumerate(names)
    ]
    pooling: dict[str, Any] = {"word_embedding_dimension": model.config.output_dim}
    for ours, theirs in POOLINGS.items():
        pooling[f"pooling_mode_{theirs}"] = ours == model.head.pooling
    limit = getattr(model.tokenizer, "model_max_length", None) or model.config.max_length
    files = {
        MODULES: modules,
        "1_Pooling/config.json": pooling,
        f"sentence_{LENGTHS[0]}_config.json": {"max_seq_length": limit, "do_lower_case": False},
        SETTINGS: (model.pretrained or {}).get("sentences", {}),
    }
    for name, values in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        write_json(path, values)


def read_list(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON list; none where there is no such file."""
    if not path.is_file():
        return []
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ConfigError(f"{path}: expected a list of modules")
    return values


def _kind(module: dict[str, Any]) -> str:
    return str(module.get("type")).rpartition(".")[2]
