"""Texts on which a tokenizer's graph is compared with the library before a file is handed over."""

import random
from collections.abc import Sequence
from typing import Any

from export.reference import TEXTS
from export.text_graph.tables import codes

_MORE = (
    *("", " ", "\n", "\t \r\n", "\0", "a\0b", "\ufeff", "\u200d", "\ufffd", "\u0301", "e\u0301"),
    *(
        "don't we'll I'd 'tis ''s they've 're",
        "it's 5's !'s \n's x'",
        "a  b   c \n\n d \t",
        "...!?",
    ),
    *("한국어 한국", "Tiếng Việt tiếng", "ﬁne ½ ① ㍿ ｶﾞ ﷺ", "ΣΑΣ İstanbul ıI ß ẞ", "שָׁלוֹם مُحَمَّد"),
    *("க்ஷ கொ ਟ੍ਰਿ ੴ", "ភាសាខ្មែរ မြန်မာ", "🇩🇪 👍🏽 👩\u200d👧 ™\ufe0f", "1,234.5 x_y a-b (c) $5 50%"),
    *("a" * 300, "日本語" * 60, "!" * 70, "ab " * 200, "\u302e\U0001d165\u0300\u05b0\u093c"),
)


def texts(tokenizer: Any, seed: int = 0) -> list[str]:
    """Texts in many scripts, the vocabulary's own tokens in random order, added tokens among
    words, and characters of all planes.
    """
    draw = random.Random(seed)
    vocabulary = sorted(tokenizer.backend.get_vocab())
    pieces = [piece.replace("Ġ", " ").replace("\u2581", " ") for piece in vocabulary]
    pieces += [piece.removeprefix("##") for piece in vocabulary]
    found = [*TEXTS, *_MORE]
    found += ["".join(draw.choice(pieces) for _ in range(draw.randint(1, 16))) for _ in range(400)]
    added = [token.content for token in tokenizer.backend.get_added_tokens_decoder().values()]
    gaps = ("", " ", "  ", "\n", "x", "é", "'", "▁", "[", ".")
    for _ in range(200 if added else 0):
        parts = [draw.choice(gaps) + draw.choice([*added, draw.choice(pieces)]) for _ in range(6)]
        found.append("".join(parts) + draw.choice(gaps))
    characters = [chr(code) for code, _ in codes()][:: 1 + draw.randint(4, 6)]
    draw.shuffle(characters)
    found += ["".join(characters[at : at + 90]) for at in range(0, len(characters), 90)][:400]
    return found


def pairs(lines: Sequence[str]) -> list[str]:
    """A second text for each: another of the lines."""
    return [*lines[7:], *lines[:7]]
