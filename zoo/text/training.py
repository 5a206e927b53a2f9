"""Training of the five tokenizer kinds; each function returns a plain `tokenizers.Tokenizer`.

Two runs on the same texts give the same vocabulary. The library's own WordPiece trainer does not
(it numbers `##x` pieces in hash order), so here the alphabet is counted first and handed over in a
fixed order; the Unigram trainer sums in hash order, so its scores are rounded before they decide
the order of the pieces.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from zoo.errors import ConfigError, DataError
from zoo.text.normalization import compose

MARK = "\u2581"  # the visible space of SentencePiece
BYTE_PIECES = [f"<0x{value:02X}>" for value in range(256)]
# WordPiece joins pieces with spaces; scripts written without spaces must not keep them.
_SPACELESS = (
    r"[\x{2E80}-\x{303F}\x{3040}-\x{30FF}\x{3400}-\x{4DBF}\x{4E00}-\x{9FFF}\x{F900}-\x{FAFF}"
    r"\x{FF00}-\x{FFEF}\x{20000}-\x{3FFFF}]"
)
SPACE_BETWEEN_HAN = Regex(rf"(?<={_SPACELESS}) (?={_SPACELESS})")


@dataclass(frozen=True)
class Plan:
    """What every trainer needs to know."""

    special_tokens: tuple[str, ...]
    unk_token: str | None
    steps: tuple[normalizers.Normalizer, ...]
    vocab_size: int | None
    min_frequency: int | None
    byte_fallback: bool = True

    def size(self, least: int, default: int, why: str) -> int:
        """The vocabulary size, checked against what the kind cannot do without."""
        size = default if self.vocab_size is None else self.vocab_size
        if size < least:
            raise ConfigError(f"vocab_size={size} is too small: {why} need at least {least}")
        return size


def corpus(texts: Iterable[str]) -> list[str]:
    """The non-empty texts as a list.

    Raises:
        DataError: when there is none, or when something is not a string.
    """
    if isinstance(texts, str):
        raise DataError("texts is one string; expected an iterable of strings, e.g. [text]")
    kept = []
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(
                f"text {number} is a {type(text).__name__}; expected a string to train on"
            )
        if text.strip():
            kept.append(text)
    if not kept:
        raise DataError("the corpus is empty: expected at least one text that is not blank")
    return kept


def _vocab(tokenizer: Tokenizer) -> dict[str, int]:
    return tokenizer.get_vocab(with_added_tokens=True)


def _assemble(
    model: models.Model,
    plan: Plan,
    normalizer: normalizers.Normalizer | None,
    pre_tokenizer: pre_tokenizers.PreTokenizer,
    decoder: decoders.Decoder,
) -> Tokenizer:
    tokenizer = Tokenizer(model)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoder
    tokenizer.add_special_tokens(list(plan.special_tokens))
    return tokenizer


def _normalized(texts: Sequence[str], normalizer: normalizers.Normalizer | None) -> Sequence[str]:
    return texts if normalizer is None else [normalizer.normalize_str(text) for text in texts]


def _alphabet(texts: Iterable[str], limit: int, ignore: str = "") -> tuple[list[str], set[str]]:
    """The `limit` most frequent characters, sorted, and the set of those left out."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    for character in ignore:
        counts.pop(character, None)
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    return sorted(ranked[:limit]), set(ranked[limit:])


def _without(texts: Sequence[str], dropped: set[str]) -> Sequence[str]:
    """Put a space for each dropped character, so that no piece is learnt across it."""
    if not dropped:
        return texts
    table = str.maketrans(dict.fromkeys(dropped, " "))
    return [text.translate(table) for text in texts]


def _words(texts: Sequence[str], pre_tokenizer: pre_tokenizers.PreTokenizer) -> list[str]:
    """The distinct words, found by the library's own counter (fast)."""
    counter = Tokenizer(models.WordLevel(unk_token="\x00"))
    counter.pre_tokenizer = pre_tokenizer
    counter.train_from_iterator(
        texts, trainers.WordLevelTrainer(vocab_size=2**31, show_progress=False)
    )
    return list(counter.get_vocab())


def train_wordpiece(texts: Sequence[str], plan: Plan) -> Tokenizer:
    """BERT's WordPiece: cleaned text, Chinese characters apart, words and punctuation split."""
    assert plan.unk_token is not None
    special = list(plan.special_tokens)
    size = plan.size(len(special) + 2, 8000, "special tokens and an alphabet")
    bert = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=False
    )
    normalizer = compose([*plan.steps, bert])
    pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    texts = _normalized(texts, normalizer)
    room = size - len(special)
    # A character may need two pieces, x and ##x; which ones do shows only in the words. Rare
    # characters go until all that is left fits.
    alphabet, dropped = _alphabet((t.translate({32: None}) for t in texts), limit=room)
    while True:
        kept = _without(texts, dropped)
        words = _words(kept, pre_tokenizer)
        singles = sorted({c for word in words for c in word})  # the trainer takes them all
        following = sorted({"##" + c for word in words for c in word[1:]})
        if len(singles) + len(following) <= room or len(alphabet) <= 1:
            break
        excess = len(singles) + len(following) - room
        alphabet, dropped = _alphabet(
            (t.translate({32: None}) for t in texts),
            limit=max(1, len(alphabet) - (excess + 1) // 2),
        )
    base = special + singles + following
    scratch = Tokenizer(models.WordPiece(unk_token=plan.unk_token))
    scratch.pre_tokenizer = pre_tokenizer
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=2 if plan.min_frequency is None else plan.min_frequency,
        special_tokens=base,
        show_progress=False,
    )
    scratch.train_from_iterator(kept, trainer)
    model = models.WordPiece(
        _vocab(scratch), unk_token=plan.unk_token, max_input_chars_per_word=512
    )
    decoder = decoders.Sequence(
        [decoders.WordPiece(prefix="##"), decoders.Fuse(), decoders.Replace(SPACE_BETWEEN_HAN, "")]
    )
    return _assemble(model, plan, normalizer, pre_tokenizer, decoder)


def train_bpe(texts: Sequence[str], plan: Plan) -> Tokenizer:
    """Byte-level BPE as in GPT-2: nothing is unknown, decoding is exact."""
    special = list(plan.special_tokens)
    size = plan.size(len(special) + 256, 8000, "special tokens and 256 bytes")
    normalizer = compose(plan.steps)
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2 if plan.min_frequency is None else plan.min_frequency,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def train_unigram(texts: Sequence[str], plan: Plan) -> Tokenizer:
    """SentencePiece's Unigram; a space is a visible mark, unknown characters fall back to bytes.

    A mark is put before the text and one is taken off after decoding, so that leading and doubled
    spaces survive. Punctuation and digits stand apart from letters, so that in scripts without
    spaces no piece crosses the end of a clause.
    """
    special = list(plan.special_tokens)
    extra = BYTE_PIECES if plan.byte_fallback else []
    fixed = len(special) + len(extra)
    what = "special tokens, 256 byte pieces (byte_fallback=False drops them) and an alphabet"
    size = plan.size(fixed + 8, 8000, what if extra else "special tokens and an alphabet")
    normalizer = normalizers.Sequence(
        [*plan.steps, normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)]
    )
    pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme="never", split=True),
            pre_tokenizers.Split(Regex(r"\p{P}+|\p{N}+"), "isolated"),
        ]
    )
    decoder = decoders.Sequence(
        [
            decoders.Replace(MARK, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    room = size - fixed
    # With bytes to fall back on, rare characters leave at least half of the room to real pieces.
    limit = room // 2 if extra else room - 1
    alphabet, dropped = _alphabet(_normalized(texts, compose(plan.steps)), limit, ignore=" ")
    scratch = Tokenizer(models.Unigram())
    scratch.pre_tokenizer = pre_tokenizer
    trainer = trainers.UnigramTrainer(
        vocab_size=room + 1, unk_token="\x00", special_tokens=["\x00"], show_progress=False
    )
    marked = [normalizer.normalize_str(text) for text in texts]
    scratch.train_from_iterator(_without(marked, dropped), trainer)
    learnt = {
        piece: score
        for piece, score in json.loads(scratch.to_str())["model"]["vocab"]
        if piece not in ("\x00", " ") and piece not in special
    }
    worst = round(min(learnt.values(), default=-10.0), 4)
    # The trainer ranks the characters that it had to add in hash order, 0.0001 apart from the
    # worst score on.
    added = worst + 0.0001 * (sum(len(piece) == 1 for piece in learnt) + 1)
    learnt = {
        piece: worst if len(piece) == 1 and score <= added else round(score, 4)
        for piece, score in learnt.items()
    }
    for character in [MARK, *alphabet]:
        learnt.setdefault(character, worst - 1.0)
    ranked = sorted(learnt.items(), key=lambda item: (-item[1], item[0]))
    pieces = ranked[:room]
    vocab = [(token, 0.0) for token in special]
    vocab += [(piece, worst - 10.0) for piece in extra]
    vocab += pieces
    unk_id = special.index(plan.unk_token) if plan.unk_token in special else None
    model = models.Unigram(vocab, unk_id, plan.byte_fallback)
    return _assemble(model, plan, normalizer, pre_tokenizer, decoder)


def train_char(texts: Sequence[str], plan: Plan) -> Tokenizer:
    """One id per character (code point), spaces and line ends included; rare ones are unknown."""
    special = list(plan.special_tokens)
    least = len(special) + 1
    normalizer = compose(plan.steps)
    counts: Counter[str] = Counter()
    for text in _normalized(texts, normalizer):
        counts.update(text)
    floor = 1 if plan.min_frequency is None else plan.min_frequency
    ranked = sorted((c for c in counts if counts[c] >= floor), key=lambda c: (-counts[c], c))
    size = plan.size(least, len(special) + len(ranked), "special tokens and an alphabet")
    if not ranked:
        raise DataError(f"no character is seen {floor} times; lower min_frequency")
    tokens = special + sorted(ranked[: size - len(special)])
    assert plan.unk_token is not None
    model = models.WordLevel({token: i for i, token in enumerate(tokens)}, plan.unk_token)
    pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return _assemble(model, plan, normalizer, pre_tokenizer, decoders.Fuse())


def train_byte(texts: Sequence[str], plan: Plan) -> Tokenizer:
    """One id per byte of UTF-8, after the special tokens, in the order of the byte values."""
    special = list(plan.special_tokens)
    size = len(special) + 256
    if plan.vocab_size is not None and plan.vocab_size < size:
        plan.size(size, size, "special tokens and 256 bytes")
    tokens = special + byte_characters()
    model = models.BPE({token: i for i, token in enumerate(tokens)}, [])
    pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return _assemble(model, plan, compose(plan.steps), pre_tokenizer, decoders.ByteLevel())


def byte_characters() -> list[str]:
    """The character that byte-level vocabularies write for each byte value, as in GPT-2."""
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(value if value in plain else next(spare)) for value in range(256)]


TRAINERS = {
    "wordpiece": train_wordpiece,
    "bpe": train_bpe,
    "unigram": train_unigram,
    "char": train_char,
    "byte": train_byte,
}
