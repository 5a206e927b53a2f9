"""The older files of a checkpoint folder turned into what `tokenizer.json` says.

Which class a folder means is found first (`zoo.text.kinds`); its builder makes the model and the
text steps; special tokens and templates are the same code for all.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from zoo.errors import DataError
from zoo.text import kinds, sentencepiece
from zoo.text.json_file import read_json
from zoo.text.kinds import Kind

Config = Mapping[str, Any]
_ROLE_ORDER = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")  # of ids, where they are new


def convert(
    folder: Path, config: Config, model_config: Config, path: Path | None = None
) -> tuple[Tokenizer, dict[str, Any]]:
    """The tokenizer of a folder that has no `tokenizer.json`.

    Args:
        folder: the folder.
        config: its `tokenizer_config.json` and `special_tokens_map.json`.
        model_config: its `config.json`.
        path: the one file to read, when the folder is not to be searched.

    Returns:
        The tokenizer and a complete configuration.

    Raises:
        DataError: when there is no vocabulary, or one of a class that is not supported.
    """
    name = kinds.class_name(config, model_config) or _guess(folder, path)
    kind = kinds.find(name, model_config.get("model_type"))
    if kind is None:
        raise DataError(
            f"{folder}: tokenizer class {name!r} is not supported without a tokenizer.json; "
            f"expected one of {', '.join(sorted(kinds.CLASSES))}. Write a tokenizer.json with "
            "the library that made the folder"
        )
    options = dict(kind.options)
    options |= {key: config[key] for key in options if config.get(key) is not None}
    tokens = dict(kind.tokens) | configured(config)
    numbered = added_tokens(folder, config)
    builder = {
        "wordpiece": _wordpiece,
        "byte_level": _byte_level,
        "gpt1": _gpt1,
        "sentencepiece": _sentencepiece,
    }[kind.build]
    renamed = {number: token.content for number, token in numbered.items()}
    backend, special = builder(folder, path, kind, options, tokens, renamed)
    _add(backend, kind, tokens, special, numbered, config)
    more = options.get("additional_special_tokens") or ()
    backend.add_special_tokens(
        [added_token(token, special=True) for token in (*more, *extra(config))]
    )
    _post_process(backend, kind, tokens, options)
    complete = dict(config) | {key: value for key, value in options.items() if value is not None}
    complete |= {f"{role}_token": token for role, token in tokens.items()}
    complete["tokenizer_class"] = name if kind.reloads else "PreTrainedTokenizerFast"
    complete.setdefault("padding_side", kind.padding_side)
    complete.setdefault("model_input_names", input_names(kind))
    return backend, {key: value for key, value in complete.items() if not isinstance(value, tuple)}


def input_names(kind: Kind) -> list[str]:
    """What the reference class gives to a model."""
    return ["input_ids", *(["token_type_ids"] if kind.type_ids else []), "attention_mask"]


def content(token: Any) -> str:
    """The text of a token that a configuration writes as a string or with its attributes."""
    return str(token["content"]) if isinstance(token, Mapping) else str(token)


def extra(config: Config) -> list[Any]:
    """Special tokens without a role, as strings or with their attributes."""
    found = config.get("additional_special_tokens") or config.get("extra_special_tokens") or ()
    return list(found.values() if isinstance(found, Mapping) else found)


def configured(config: Config) -> dict[str, str]:
    found = {role: config.get(f"{role}_token") for role in _ROLE_ORDER}
    return {role: content(token) for role, token in found.items() if token is not None}


def added_tokens(folder: Path, config: Config) -> dict[int, AddedToken]:
    """Id to token, from `added_tokens_decoder` and `added_tokens.json`."""
    found: dict[int, AddedToken] = {}
    for text, number in read_json(folder / "added_tokens.json").items():
        found[int(number)] = AddedToken(text, normalized=False)
    for number, token in (config.get("added_tokens_decoder") or {}).items():
        found[int(number)] = added_token(token)
    return dict(sorted(found.items()))


def added_token(token: Any, special: bool = False, **flags: bool) -> AddedToken:
    """The library's token, with the attributes that a configuration gives it."""
    if isinstance(token, Mapping):
        names = ("single_word", "lstrip", "rstrip", "normalized", "special")
        flags |= {name: bool(token[name]) for name in names if name in token}
    flags = {"normalized": False, "special": special} | flags
    return AddedToken(content(token), **flags)


def _unnormalized(token: AddedToken) -> AddedToken:
    flags = {name: getattr(token, name) for name in ("single_word", "lstrip", "rstrip", "special")}
    return AddedToken(token.content, normalized=False, **flags)


def _guess(folder: Path, path: Path | None) -> str:
    """The class that the files themselves suggest."""
    names = {path.name} if path else {entry.name for entry in folder.iterdir()}
    if any(name.endswith(".txt") and name != "merges.txt" for name in names):
        file = path or folder / "vocab.txt"
        lines = set(file.read_text(encoding="utf-8").split("\n")) if file.is_file() else set()
        return "MPNetTokenizer" if {"<s>", "</s>", "[UNK]"} <= lines else "BertTokenizer"
    if {"source.spm", "vocab.json"} <= names:
        return "MarianTokenizer"
    if "sentencepiece.bpe.model" in names:
        return "M2M100Tokenizer" if "vocab.json" in names else "XLMRobertaTokenizer"
    if "vocab.json" in names:
        text = (folder / "vocab.json").read_text(encoding="utf-8")
        if "</w>" in text:
            return "OpenAIGPTTokenizer"
        return "RobertaTokenizer" if '"<s>"' in text and '"</s>"' in text else "GPT2Tokenizer"
    if "spm.model" in names:
        return "DebertaV2Tokenizer"
    found = [path] if path else [folder / name for name in sentencepiece.FILES if name in names]
    found = [file for file in found if file.suffix in (".model", ".spm")]
    if not found:
        raise DataError(
            f"{folder}: no tokenizer here; expected tokenizer.json, vocab.txt, vocab.json with "
            f"merges.txt, or one of {', '.join(sentencepiece.FILES)}"
        )
    pieces = {piece.text for piece in sentencepiece.read(found[0]).pieces[:300]}
    for name, needed in (
        ("AlbertTokenizer", {"[CLS]", "[SEP]"}),
        ("XLNetTokenizer", {"<cls>", "<sep>"}),
        ("GemmaTokenizer", {"<bos>", "<eos>"}),
        ("LlamaTokenizer", {"<0x00>"}),
    ):
        if needed <= pieces:
            return name
    return "LlamaTokenizer" if found[0].name == "tokenizer.model" else "T5Tokenizer"


# The builders: folder, file, kind, options, tokens, renamed -> tokenizer, its special tokens


def _file(folder: Path, path: Path | None, *names: str) -> Path:
    found = [folder / name for name in names if (folder / name).is_file()]
    if path is not None or found:
        return path or found[0]
    raise DataError(f"{folder}: {' or '.join(names)} is missing; the tokenizer needs it")


def _renamed(vocab: dict[str, int], renamed: Mapping[int, str]) -> dict[str, int]:
    """Give tokens the names that a folder gives them now, e.g. `[unused1]`."""
    known = {number: text for text, number in vocab.items()}
    for number, text in renamed.items():
        if number in known and text not in vocab:
            del vocab[known[number]]
            vocab[text] = number
    return vocab


def _wordpiece(
    folder: Path, path: Path | None, kind: Kind, options: Config, tokens: Config, renamed: Any
) -> tuple[Tokenizer, list[str]]:
    path = _file(folder, path, "vocab.txt")
    lines = path.read_text(encoding="utf-8").split("\n")
    vocab = _renamed({line: i for i, line in enumerate(lines) if line}, renamed)
    missing = [tokens[role] for role in ("unk", "cls", "sep") if tokens[role] not in vocab]
    if missing:
        raise DataError(f"{path}: {', '.join(missing)} missing; expected a BERT vocabulary")
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=tokens["unk"]))
    lowercase = options["do_lower_case"]
    if lowercase is None:  # cased vocabularies are the ones with capital letters of their own
        lowercase = not any(token.isalpha() and token != token.lower() for token in vocab)
        options["do_lower_case"] = lowercase  # type: ignore[index]
    tokenizer.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=options["tokenize_chinese_chars"],
        strip_accents=options["strip_accents"],
        lowercase=lowercase,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer, []


def _merges(folder: Path, renamed: Any) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a BPE model."""
    vocab_path = _file(folder, None, "vocab.json", "encoder.json")
    merges_path = _file(folder, None, "merges.txt", "vocab.bpe")
    lines = merges_path.read_text(encoding="utf-8").split("\n")
    pairs = [tuple(line.rstrip("\r").split(" ")) for line in lines if line.strip()]
    if pairs and pairs[0][0].startswith("#version"):
        pairs = pairs[1:]
    wrong = [pair for pair in pairs if len(pair) != 2]
    if wrong:
        raise DataError(f"{merges_path}: line {' '.join(wrong[0])!r}; expected two symbols a line")
    return _renamed(read_json(vocab_path), renamed), pairs  # type: ignore[return-value]


def _byte_level(
    folder: Path, path: Path | None, kind: Kind, options: Config, tokens: Config, renamed: Any
) -> tuple[Tokenizer, list[str]]:
    vocab, merges = _merges(folder, renamed)
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    if kind.nfc:
        tokenizer.normalizer = normalizers.NFC()
    prefix = bool(options["add_prefix_space"])
    if kind.words:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(kind.words), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False),
            ]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, []


def _gpt1(
    folder: Path, path: Path | None, kind: Kind, options: Config, tokens: Config, renamed: Any
) -> tuple[Tokenizer, list[str]]:
    vocab, merges = _merges(folder, renamed)
    tokenizer = Tokenizer(
        models.BPE(vocab, merges, unk_token=tokens["unk"], end_of_word_suffix="</w>")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    return tokenizer, []


def _sentencepiece(
    folder: Path, path: Path | None, kind: Kind, options: Config, tokens: Config, renamed: Any
) -> tuple[Tokenizer, list[str]]:
    path = _file(folder, path, *sentencepiece.FILES)
    return sentencepiece.build(folder, path, kind, {**options, **tokens}, renamed)


# Special tokens and templates


def _add(
    backend: Tokenizer,
    kind: Kind,
    tokens: Mapping[str, str],
    special: list[str],
    numbered: Mapping[int, AddedToken],
    config: Config,
) -> None:
    """Make tokens special; those that the vocabulary lacks follow it in the reference's order.

    Args:
        backend: the tokenizer to change.
        kind: facts of its class.
        tokens: role to token.
        special: the class's own special tokens, those behind the vocabulary in order.
        numbered: id to token, as the folder says.
        config: its configuration, which may give a role's token attributes.
    """
    if kind.build == "sentencepiece":  # its text steps put marks into a text: match before them
        numbered = {number: _unnormalized(token) for number, token in numbered.items()}
    flags = {token.content: token for token in numbered.values()}
    for role in _ROLE_ORDER:
        token = config.get(f"{role}_token")
        if isinstance(token, Mapping):
            flags.setdefault(content(token), _unnormalized(added_token(token, special=True)))
    if kind.mask_takes_space and "mask" in tokens:
        mask = tokens["mask"]
        flags.setdefault(mask, AddedToken(mask, lstrip=True, normalized=False, special=True))

    def special_token(text: str) -> AddedToken:
        token = flags.get(text) or AddedToken(text, normalized=False, special=True)
        token.special = True
        return token

    # What the folder numbers itself stands there; the class's own tokens go where room is left.
    known = [text for text in special if backend.token_to_id(text) is not None]
    backend.add_special_tokens([special_token(text) for text in known])
    waiting = [text for text in special if text not in known and text not in flags]
    for number, token in numbered.items():
        while backend.token_to_id(token.content) is None and backend.get_vocab_size() < number:
            text = waiting.pop(0) if waiting else f"<unused_{backend.get_vocab_size()}>"
            backend.add_special_tokens([special_token(text)])
        (backend.add_special_tokens if token.special else backend.add_tokens)([token])
    backend.add_special_tokens([special_token(text) for text in waiting])
    roles = [tokens[role] for role in _ROLE_ORDER if role in tokens]
    backend.add_special_tokens([special_token(text) for text in dict.fromkeys(roles)])


def _post_process(backend: Tokenizer, kind: Kind, tokens: Config, options: dict[str, Any]) -> None:
    """The special tokens around one text and two, with their token types."""
    single, pair = kind.single, kind.pair
    language = str(options.get("src_lang", ""))
    if kind.layout == "m2m100":
        language = f"__{language}__"
    if options.get("legacy_behaviour"):
        single, pair = "$A {eos} {lang}", "$A $B {eos} {lang}"
    if "add_bos_token" in options:
        front = "{bos}" if options["add_bos_token"] else ""
        back = "{eos}" if options.get("add_eos_token") else ""
        single = f"{front} $A {back}"
        pair = f"{single} {front}:1 $B:1 {back}:1".replace(" :1", "")
    names = dict(tokens) | {"lang": language}
    steps: list[processors.PostProcessor] = []
    if kind.build == "byte_level":
        trim = bool(options.get("trim_offsets", False))
        prefix = bool(options["add_prefix_space"])
        steps.append(processors.ByteLevel(trim_offsets=trim, add_prefix_space=prefix))
    used = [names[role] for role in re.findall(r"{(\w+)}", single + pair)]
    if used:
        numbers = {text: backend.token_to_id(text) for text in used}
        unknown = [text for text, number in numbers.items() if number is None]
        if unknown:
            raise DataError(
                f"the vocabulary has no {', '.join(map(repr, unknown))}, which stands around each "
                "text; name the right token in tokenizer_config.json"
            )
        shapes = [shape.format(**names).split() for shape in (single, pair)]
        steps.append(processors.TemplateProcessing(*shapes, list(numbers.items())))
    if steps:
        backend.post_processor = steps[0] if len(steps) == 1 else processors.Sequence(steps)
