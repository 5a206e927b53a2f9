"""What SentencePiece and the classes around it do to a text before and after its pieces."""

import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers

from zoo.text import charsmap
from zoo.text.kinds import Kind
from zoo.text.piece_file import BPE, BYTE, NORMAL, USER_DEFINED, Piece, PieceFile

MARK = "\u2581"
_WORDS = f"{MARK}*[^{MARK}]+|{MARK}+"
_PUNCTUATION = r"[\p{P}!-/:-@\[-`{-~]"
_CUT = "\U000e0002"  # no character: where a text is cut before anything else
Steps = list[normalizers.Normalizer]


def prepare(
    tokenizer: Tokenizer,
    file: PieceFile,
    vocab: Sequence[Piece],
    kind: Kind,
    options: Mapping[str, Any],
) -> None:
    """Give a tokenizer its normaliser, pre-tokenizer and decoder.

    With `legacy=False` a space is put only in front of the whole text, not of each part that
    follows a special token, and one before such a part is kept.
    """
    prefixed = file.dummy_prefix and bool(options.get("add_prefix_space", True))
    once = not options.get("legacy", True)
    cut = bool(options.get("split_by_punct"))
    symbols = [piece.text for piece in vocab if piece.kind == USER_DEFINED]
    steps = _class_steps(kind, options)
    replaced = _replaced(file.charsmap, symbols)
    prefix = [normalizers.Prepend(MARK)] * (prefixed and not once and not cut)
    if file.trims_spaces:
        ends = rf"[ {MARK}]+\z" if once else rf"\A +|[ {MARK}]+\z"
        trims = [normalizers.Replace(Regex(ends), ""), normalizers.Replace(Regex(" {2,}"), " ")]
        steps += [*replaced, *trims, *prefix]
    else:  # of a text that vanishes the prefix stays
        steps += [*prefix, *replaced]
    if not cut:
        steps.append(normalizers.Replace(" ", MARK))
    spaced = any(piece.text.startswith(" ") for piece in vocab)
    if spaced:
        steps.append(_spaced_runs(vocab))
    tokenizer.normalizer = normalizers.Sequence(steps)
    cuts = _cuts(file, vocab, symbols, prefixed, once, cut)
    if cuts:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cuts)

    back: list[decoders.Decoder] = []
    if spaced:
        back.append(decoders.Replace(" ", ""))
    back.append(decoders.Replace(MARK, " "))
    if any(piece.kind == BYTE for piece in vocab):
        back.append(decoders.ByteFallback())
    back.append(decoders.Fuse())
    if prefixed:
        back.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(back)


def _cuts(
    file: PieceFile,
    vocab: Sequence[Piece],
    symbols: Sequence[str],
    prefixed: bool,
    once: bool,
    cut: bool,
) -> list[pre_tokenizers.PreTokenizer]:
    """Where no piece reaches across."""
    cuts: list[pre_tokenizers.PreTokenizer] = []
    if cut:
        scheme = "always" if prefixed else "never"
        cuts.append(pre_tokenizers.Split(Regex(f"[{_CUT} ]+"), "removed"))
        cuts.append(pre_tokenizers.Metaspace(MARK, prepend_scheme=scheme, split=False))
    elif prefixed and once and file.trims_spaces:
        cuts.append(pre_tokenizers.Metaspace(MARK, prepend_scheme="first", split=False))
    elif prefixed and once:
        # The first puts a space before the text, whatever it starts with; the second marks it.
        cuts.append(pre_tokenizers.Metaspace(" ", prepend_scheme="first", split=False))
        cuts.append(pre_tokenizers.Metaspace(MARK, prepend_scheme="never", split=False))
    if symbols and file.algorithm == BPE:  # Unigram prefers them by their scores
        either = "|".join(re.escape(text) for text in sorted(symbols, key=len, reverse=True))
        cuts.append(pre_tokenizers.Split(Regex(either), "isolated"))
    matched = [piece.text for piece in vocab if piece.kind in (NORMAL, USER_DEFINED)]
    reaching = any(re.search(f"[^{MARK}]{MARK}", text) for text in matched)
    if MARK in matched and not reaching and file.algorithm != BPE:
        # No piece reaches across the front of a word: words apart are faster, and can be cached.
        # BPE gains little by it, and onnxruntime-genai reads such a model only where nothing cuts.
        cuts.append(pre_tokenizers.Split(Regex(_WORDS), "isolated"))
    return cuts


def _class_steps(kind: Kind, options: Mapping[str, Any]) -> Steps:
    """What the reference classes do to a text before they hand it to SentencePiece."""
    lower: Steps = [normalizers.Lowercase()] * bool(options.get("do_lower_case"))
    steps = list(lower)
    if options.get("split_by_punct"):
        borders = rf"(?<=.)(?={_PUNCTUATION})|(?<={_PUNCTUATION})(?=.)"
        steps.append(normalizers.Replace(Regex(borders), _CUT))
    if kind.accents:
        if options["remove_space"]:
            space = r"[\s\x{1c}-\x{1f}]+"  # as Python's str.split
            steps += [normalizers.Replace(Regex(space), " "), normalizers.Strip()]
        steps += [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
        if not options["keep_accents"]:
            steps += [normalizers.NFKD(), normalizers.Replace(Regex(_combining()), ""), *lower]
    return steps


@cache
def _combining() -> str:
    codes = (code for code in range(sys.maxunicode) if unicodedata.combining(chr(code)))
    return charsmap.character_class(codes)


def _replaced(table: bytes, symbols: Sequence[str]) -> Steps:
    """The table of replacements, which pieces that users defined pass unchanged."""
    steps = charsmap.steps(table)
    if not steps:
        return []
    apply = normalizers.Sequence(steps).normalize_str
    touched = sorted((s for s in symbols if apply(s) != s), key=len, reverse=True)
    private = [chr(0xF0000 + number) for number in range(len(touched))]
    hide = [normalizers.Replace(s, p) for s, p in zip(touched, private, strict=True)]
    show = [normalizers.Replace(p, s) for s, p in zip(touched, private, strict=True)]
    return [*hide, *steps, *show]


def _spaced_runs(vocab: Sequence[Piece]) -> normalizers.Normalizer:
    """A space before and behind each run of unknown characters (see `sentencepiece._shared`)."""
    known = {ord(p.text) for p in vocab if len(p.text) == 1 and p.kind in (NORMAL, USER_DEFINED)}
    one = charsmap.character_class({ord(MARK), *known})
    other = one.replace("[", "[^", 1)
    edges = rf"(?:(?<={one})|\A)(?={other})|(?<={other})(?:(?={one})|\z)"
    return normalizers.Replace(Regex(edges), " ")
