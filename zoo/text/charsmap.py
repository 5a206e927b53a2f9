"""SentencePiece's table of character replacements, applied as SentencePiece applies it."""

import unicodedata
from collections.abc import Iterable
from functools import cache

from tokenizers import Regex, normalizers

# A character that no text holds, at which nothing composes and which stands alone (Unicode's
# retired language tag).
WALL = "\U000e0001"
# What the library would take together with the character before it.
_FOLLOWERS = (
    r"[\p{M}\n\x{200c}\x{200d}\x{e33}\x{eb3}\x{ff9e}\x{ff9f}\x{1100}-\x{11ff}\x{1f3fb}-\x{1f3ff}]"
)


def character_class(codes: Iterable[int]) -> str:
    """A regular expression for one of these code points."""
    ranges: list[list[int]] = []
    for code in sorted(codes):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "[" + "".join(rf"\x{{{a:x}}}-\x{{{b:x}}}" for a, b in ranges) + "]"


@cache
def _composing() -> str:
    """Characters that Unicode's composition merges into the one before them."""
    codes = {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}  # Hangul vowels and finals
    for code in range(0xC0, 0x20000):
        parts = unicodedata.decomposition(chr(code))
        if (
            parts.count(" ") == 1
            and parts[0] != "<"
            and unicodedata.normalize("NFC", chr(code)) == chr(code)
        ):
            codes.add(int(parts.split()[1], 16))
    return character_class(codes)


def steps(charsmap: bytes) -> list[normalizers.Normalizer]:
    """Normalisers that do what the table does.

    SentencePiece replaces the longest entry at each place. The library looks up whole grapheme
    clusters up to five bytes long and drops what follows a match in one; longer clusters it looks
    up by single characters, and so misses entries of several characters: Hangul, Vietnamese or
    kana written with combining characters. In the tables that SentencePiece comes with, such
    entries are compositions. So the characters are walled off from each other, replaced one by
    one, and composed where the walls before composing characters are taken down.
    """
    if not charsmap:
        return []
    table = normalizers.Precompiled(charsmap)
    if table.normalize_str("e\u0301") != "\u00e9":  # a table of another making: as it is
        return [table]
    return [
        normalizers.Replace(Regex(rf"(?<=.)(?={_FOLLOWERS})"), WALL),
        table,
        normalizers.Replace(Regex(rf"{WALL}(?={_composing()})"), ""),
        normalizers.NFC(),
        normalizers.Replace(WALL, ""),
    ]
