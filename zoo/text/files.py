"""Tokenizer files: `tokenizer.json`, `tokenizer_config.json` and the older vocabularies."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from zoo.errors import DataError

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


def write_atomically(path: Path, text: str) -> None:
    """Write `path` whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, `{}` when there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds a {type(value).__name__}; expected a JSON object")
    return value


def load_backend(path: str | os.PathLike[str]) -> tuple[Tokenizer, dict[str, Any]]:
    """The library's tokenizer and its configuration.

    A folder may hold `tokenizer.json`, or `vocab.txt` (BERT), or `vocab.json` and `merges.txt`
    (GPT-2, RoBERTa).

    Raises:
        DataError: when nothing of the kind is there or it cannot be read.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    config = read_json(folder / "special_tokens_map.json")
    config |= read_json(folder / "tokenizer_config.json")
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; expected a tokenizer.json or its folder")
    try:
        if path.is_file() and path.suffix == ".json":
            return Tokenizer.from_file(str(path)), config
        if (folder / "tokenizer.json").is_file() and path.is_dir():
            return Tokenizer.from_file(str(folder / "tokenizer.json")), config
        if path.is_file() and path.suffix == ".txt":
            return _bert(path, config), config
        if (folder / "vocab.txt").is_file():
            return _bert(folder / "vocab.txt", config), config
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            return _gpt2(folder), config
    except DataError:
        raise
    except Exception as error:  # the library raises plain Exception
        raise DataError(f"{path}: the tokenizer cannot be read ({error})") from error
    raise DataError(
        f"{path}: no tokenizer here; expected tokenizer.json, vocab.txt, "
        "or vocab.json with merges.txt"
    )


def _bert(path: Path, config: Mapping[str, Any]) -> Tokenizer:
    vocab = {line: i for i, line in enumerate(path.read_text(encoding="utf-8").split("\n")) if line}
    missing = [token for token in ("[UNK]", "[CLS]", "[SEP]") if token not in vocab]
    if missing:
        raise DataError(f"{path}: {', '.join(missing)} missing; expected a BERT vocabulary")
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    # Cased vocabularies are the ones with capital letters of their own.
    cased = any(token.isalpha() and token != token.lower() for token in vocab)
    tokenizer.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", not cased),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    special = [t for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if t in vocab]
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"])
    )
    return tokenizer


def _gpt2(folder: Path) -> Tokenizer:
    model = models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    vocab = tokenizer.get_vocab()
    known = [token for tokens in KNOWN.values() for token in tokens if token in vocab]
    tokenizer.add_special_tokens(known)
    if "<s>" in vocab and "</s>" in vocab:
        tokenizer.post_processor = processors.RobertaProcessing(
            ("</s>", vocab["</s>"]), ("<s>", vocab["<s>"]), add_prefix_space=False
        )
    else:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


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
