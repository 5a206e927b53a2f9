"""Tokenizer files: `tokenizer.json`, `tokenizer_config.json` and the older vocabularies."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from zoo.errors import DataError
from zoo.text import kinds, slow
from zoo.text.json_file import read_json, write_atomically

CHAT_TEMPLATE = "chat_template.jinja"
NAMED_TEMPLATES = "additional_chat_templates"
# Says nothing, or only about files that are not kept.
UNKEPT = ("auto_map", "name_or_path", "tokenizer_file", "vocab_file", "special_tokens_map_file")
# Classes of `transformers` that do not read tokenizer.json.
PYTHON_ONLY = ("MarianTokenizer", "M2M100Tokenizer")
ROLES = ("pad", "unk", "bos", "eos", "cls", "sep", "mask")
# Where no configuration names them: the spellings in use, per role.
KNOWN = {
    "pad": ("[PAD]", "<pad>", "<|pad|>"),
    "unk": ("[UNK]", "<unk>"),
    "bos": ("<s>", "<bos>", "<|begin_of_text|>", "<|im_start|>"),
    "eos": ("</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>"),
    "cls": ("[CLS]", "<cls>"),
    "sep": ("[SEP]", "<sep>"),
    "mask": ("[MASK]", "<mask>"),
}


def load_backend(path: str | os.PathLike[str]) -> tuple[Tokenizer, dict[str, Any]]:
    """The library's tokenizer and its configuration.

    A folder may hold `tokenizer.json`, or older files that are turned into one (see
    `zoo.text.slow`): `vocab.txt`, `vocab.json` with `merges.txt`, a SentencePiece `.model`, or
    Marian's `source.spm` with `vocab.json`.

    Raises:
        DataError: when nothing of the kind is there, it cannot be read or is not supported.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; expected a tokenizer.json or its folder")
    config = read_config(folder)
    model = read_json(folder / "config.json")
    file = path if path.is_file() else folder / "tokenizer.json"
    try:
        if file.suffix == ".json" and file.is_file():
            backend = Tokenizer.from_file(str(file))
            return backend, _completed(backend, config, model)
        return slow.convert(folder, config, model, path if path.is_file() else None)
    except DataError:
        raise
    except Exception as error:  # the library raises plain Exception
        raise DataError(f"{path}: the tokenizer cannot be read ({error})") from error


def read_config(folder: Path) -> dict[str, Any]:
    """`tokenizer_config.json`, with what only its older companions say."""
    config = {
        key: value
        for key, value in read_json(folder / "tokenizer_config.json").items()
        if key not in UNKEPT
    }
    for key, value in read_json(folder / "special_tokens_map.json").items():
        if config.get(key) is None:
            config[key] = value
    template = folder / CHAT_TEMPLATE
    if template.is_file():
        config["chat_template"] = template.read_text(encoding="utf-8")
    named = sorted((folder / NAMED_TEMPLATES).glob("*.jinja"))
    if named:  # as older files have them: all in a list
        given = config.get("chat_template")
        if isinstance(given, str):
            given = [{"name": "default", "template": given}]
        listed = {entry["name"]: entry["template"] for entry in given or []}
        listed |= {path.stem: path.read_text(encoding="utf-8") for path in named}
        config["chat_template"] = [{"name": n, "template": text} for n, text in listed.items()]
    return config


def _completed(
    backend: Tokenizer, config: dict[str, Any], model: Mapping[str, Any]
) -> dict[str, Any]:
    """Add what `tokenizer.json` leaves to the class: tokens behind the vocabulary, roles."""
    added = config.get("added_tokens_decoder") or {}
    for token in (added[number] for number in sorted(added, key=int)):
        if backend.token_to_id(slow.content(token)) is None:
            backend.add_tokens([slow.added_token(token)])
    named = slow.configured(config)
    new = {token for token in named.values() if backend.token_to_id(token) is None}
    backend.add_special_tokens([token for token in named.values() if token in new])
    kind = kinds.find(kinds.class_name(config, model), model.get("model_type"))
    if kind is not None:
        for role, token in kind.tokens.items():
            if f"{role}_token" not in config and backend.token_to_id(token) is not None:
                config[f"{role}_token"] = token
        config.setdefault("model_input_names", slow.input_names(kind))
    return config


def write(folder: Path, backend: str, config: Mapping[str, Any], added: Mapping[int, Any]) -> None:
    """Write a tokenizer's files, each whole or not at all, for `transformers` too to load.

    Args:
        folder: where to.
        backend: the text of `tokenizer.json`.
        config: what goes into `tokenizer_config.json`.
        added: id to token, of those that `tokenizer.json` adds to its vocabulary.
    """
    config = dict(config)
    name = str(config.get("tokenizer_class") or "").removesuffix("Fast")
    if name in kinds.GENERIC or name in PYTHON_ONLY:
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config["added_tokens_decoder"] = {
        str(number): {
            "content": token.content,
            "lstrip": token.lstrip,
            "normalized": token.normalized,
            "rstrip": token.rstrip,
            "single_word": token.single_word,
            "special": token.special,
        }
        for number, token in sorted(added.items())
    }
    text = json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    write_atomically(folder / "tokenizer.json", backend)
    write_atomically(folder / "tokenizer_config.json", text)
    if isinstance(config.get("chat_template"), str):
        write_atomically(folder / CHAT_TEMPLATE, config["chat_template"])


def role_tokens(backend: Tokenizer, config: Mapping[str, Any]) -> dict[str, str]:
    """Which token plays which role: as configured, else by its usual spelling."""
    roles: dict[str, str] = {}
    for role in ROLES:
        value = config.get(f"{role}_token")
        if isinstance(value, Mapping):
            value = value.get("content")
        if value is not None and backend.token_to_id(value) is not None:
            roles[role] = value
    if roles:
        return roles
    for role, names in KNOWN.items():
        found = [name for name in names if backend.token_to_id(name) is not None]
        if found:
            roles[role] = found[0]
    return roles
