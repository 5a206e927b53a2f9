"""SentencePiece models as tokenizers of the `tokenizers` library, id for id."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models

from zoo.errors import DataError
from zoo.text import languages, piece_text
from zoo.text.json_file import read_json
from zoo.text.kinds import Kind
from zoo.text.piece_file import (
    BPE,
    BYTE,
    CONTROL,
    NORMAL,
    UNIGRAM,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Piece,
    PieceFile,
    read,
)

FILES = (
    "tokenizer.model",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "source.spm",
)
Options = Mapping[str, Any]
Layout = tuple[list[Piece], list[str]]  # the vocabulary and the special tokens behind it
_FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>")


def _control(names: Sequence[str]) -> list[Piece]:
    return [Piece(name, 0.0, UNKNOWN if name == "<unk>" else CONTROL) for name in names]


def _plain(pieces: list[Piece], options: Options) -> Layout:
    return pieces, []


def _t5(pieces: list[Piece], options: Options) -> Layout:
    count = int(options["extra_ids"])
    return pieces, [f"<extra_id_{number}>" for number in range(count - 1, -1, -1)]


def _fairseq(tail: Sequence[str]) -> Callable[[list[Piece], Options], Layout]:
    """Fairseq's dictionaries: four tokens of its own in place of the model's first three."""
    return lambda pieces, options: (_control(_FAIRSEQ) + pieces[3:], list(tail))


def _camembert(pieces: list[Piece], options: Options) -> Layout:
    head = ("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED")
    return _control(head) + pieces[1:], ["<mask>"]


def _pegasus(pieces: list[Piece], options: Options) -> Layout:
    masks = [options["mask_token_sent"], options["mask"]] if options["mask_token_sent"] else []
    head = [options["pad"], options["eos"], *masks]
    count = int(options["offset"]) + 2 - len(head)
    head += [f"<unk_{number}>" for number in range(2, 2 + count)]
    return _control(head) + pieces[2:], []


LAYOUTS: dict[str, Callable[[list[Piece], Options], Layout]] = {
    "plain": _plain,
    "t5": _t5,
    "fairseq": _fairseq(["<mask>"]),
    "camembert": _camembert,
    "mbart": _fairseq([*languages.MBART, "<mask>"]),
    "mbart50": _fairseq([*languages.MBART, *languages.MBART50_MORE, "<mask>"]),
    "nllb": _fairseq([*languages.NLLB, "<mask>"]),
    "pegasus": _pegasus,
}
_SHARED = ("marian", "m2m100")  # ids from a vocab.json beside the model
LANGUAGES = {"m2m100": languages.M2M100, "wmt21": languages.WMT21}


def build(
    folder: Path, path: Path, kind: Kind, options: Options, renamed: Mapping[int, str]
) -> tuple[Tokenizer, list[str]]:
    """The tokenizer of a SentencePiece model.

    Args:
        folder: where a `vocab.json` may lie.
        path: the `.model` file.
        kind: facts of its class.
        options: the class's options and tokens (by role) as configured.
        renamed: id to name, for pieces that the folder names otherwise.

    Returns:
        The tokenizer without post-processor, and the special tokens, in the order of their ids,
        those in the vocabulary and those behind it.
    """
    file = read(path)
    if kind.layout in _SHARED:
        vocab, tail = _shared(folder, file, kind, options)
    else:
        vocab, tail = LAYOUTS[kind.layout](list(file.pieces), options)
    vocab = [
        Piece(renamed[number], piece.score, piece.kind) if number in renamed else piece
        for number, piece in enumerate(vocab)
    ]
    tokenizer = Tokenizer(_model(file, vocab, kind, options))
    piece_text.prepare(tokenizer, file, vocab, kind, options)
    return tokenizer, [piece.text for piece in vocab if piece.kind in (CONTROL, UNKNOWN)] + tail


def _shared(folder: Path, file: PieceFile, kind: Kind, options: Options) -> Layout:
    """Ids of a `vocab.json`, e.g. of source and target pieces together.

    A piece that only the target has must not match a source text: its name gets two spaces,
    which prepared text never holds and which the decoder takes off. But the reference looks up
    unknown characters too, a run of them at once: such names stand between two spaces, and so do
    runs in a text (`zoo.text.piece_text`). Pieces that the vocabulary lacks are left out.
    """
    path = folder / "vocab.json"
    numbers = read_json(path)
    if sorted(numbers.values()) != list(range(len(numbers))) or not numbers:
        raise DataError(f"{path}: expected tokens numbered from 0 without gaps")
    if kind.layout == "marian" and options.get("separate_vocabs"):
        raise DataError(
            f"{folder}: separate_vocabs is set; expected one vocabulary for source and target"
        )
    special = {options[role] for role in ("pad", "eos", "unk", "bos") if role in options}
    known = {piece.text: piece for piece in file.pieces if piece.kind not in (CONTROL, UNKNOWN)}
    characters = {text for text in known if len(text) == 1}
    vocab = []
    for text in sorted(numbers, key=numbers.__getitem__):
        if text in special or re.fullmatch(">>.+<<", text):
            vocab.append(Piece(text, 0.0, UNKNOWN if text == options["unk"] else CONTROL))
        else:
            run = file.algorithm == UNIGRAM and characters.isdisjoint(text)
            hidden = f" {text} " if run else f"  {text}"
            vocab.append(known.get(text) or Piece(hidden, 0.0, UNUSED))
    if kind.layout == "marian":
        return vocab, []
    codes = LANGUAGES.get(options["language_codes"])
    if codes is None:
        raise DataError(
            f"language_codes={options['language_codes']!r}; expected one of {', '.join(LANGUAGES)}"
        )
    return vocab, [f"__{code}__" for code in codes]


def _model(
    file: PieceFile, vocab: list[Piece], kind: Kind, options: Options
) -> models.Unigram | models.BPE:
    unknown = [number for number, piece in enumerate(vocab) if piece.kind == UNKNOWN]
    unk = next((n for n in unknown if vocab[n].text == options.get("unk")), None)
    unk = unk if unk is not None else next(iter(unknown), None)
    if unk is None:
        raise DataError(
            f"no unknown piece among the {len(vocab)} of the model once its ids are those of "
            f"layout {kind.layout!r}; expected the model that the class was made for"
        )
    if file.algorithm == BPE:
        names = {piece.text: number for number, piece in enumerate(vocab)}
        return models.BPE(
            names,
            _merges(vocab),
            unk_token=vocab[unk].text,
            fuse_unk=True,
            byte_fallback=file.byte_fallback,
            # Pieces that users defined stand alone by then and have no merges.
            ignore_merges=any(piece.kind == USER_DEFINED for piece in vocab),
        )
    scores = [piece.score for piece in vocab if piece.kind == NORMAL]
    best, worst = max([0.0, *scores]), min(scores, default=0.0)

    def score(piece: Piece) -> float:
        if piece.kind == USER_DEFINED:  # as in the SentencePiece library, which starts at 0
            return len(piece.text.encode()) * best - 0.1
        if piece.kind != NORMAL:  # no text is to match it
            return worst - 1000.0 * (piece.kind == BYTE)
        # ALBERT and XLNet cut a comma off a number: such pieces are the last choice.
        return piece.score - 100.0 * (kind.accents and bool(re.search(r"\d,\Z", piece.text)))

    rows = [(piece.text, score(piece)) for piece in vocab]
    return models.Unigram(rows, unk, file.byte_fallback)


def _merges(vocab: Sequence[Piece]) -> list[tuple[str, str]]:
    """Merges in the order of the scores of what they make: all ways to cut a piece in two."""
    mergeable = (NORMAL, UNUSED)
    names = {piece.text for piece in vocab if piece.kind in mergeable}
    order = sorted(
        (-piece.score, number)
        for number, piece in enumerate(vocab)
        if piece.kind in mergeable and len(piece.text) > 1
    )
    merges = []
    for _, number in order:
        text = vocab[number].text
        halves = ((text[:cut], text[cut:]) for cut in range(1, len(text)))
        merges += [(left, right) for left, right in halves if left in names and right in names]
    return merges
