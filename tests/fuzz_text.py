"""Lines of text in many scripts, for tests that compare two tokenizers."""

import random
import unicodedata
from functools import cache

from babel import Locale, localedata

EDGES = [
    *["", " ", "  ", "\n", "\n\n", "\t", "\r\n", "a", "  a", "a  ", "a\n", "a\r\nb", "\u00a0a"],
    *[
        "\u2581",
        "\u2581a",
        "a\u2581b",
        " \u2581 a",
        "\x00",
        "a\x00b",
        "\x01\x02",
        "\x7f",
        "\ufeffa",
    ],
    *[
        "\ufeffa",
        "\u200d",
        "\u200b a",
        "a\u200db",
        "\ufffd",
        "e\u0301",
        "\u0301",
        "½\u0301",
        "Ａ\u0301",
    ],
    *["\u1100\u1161", "한", "aaaaaaa", "   \n   ", "..", ". . .", "a.b", "(a)", "--", "<a>", "[a]"],
    *["1,000,000", "9,", "a,", "👨\u200d👩\u200d👧", "🇩🇪", "a" * 300, "!" * 50, "日本語" * 20, "ﷺ"],
    *["\u2028a", "a\x85b", "\x1ca", "ß", "\u0e01\u0e33", "™\ufe0f ©\ufe0f 👍🏽", "ｶﾞｷﾞ ﾊﾟ", "x " * 40],
]
WORDS = """
the quick brown fox 1,234 dogs, 9, 17,5 3.14 isn't "quoted" ``tick'' e.g. a-b (c) x_y $5 50% @me C++
https://a.b/c?d=e&f=g ΣΑΣ İstanbul ﬁne ½ ① ㍿ ｶﾞｷﾞ 한국어 \u1112\u1161\u11ab é e\u0301 Å Ⅳ “curly” … —
£9 ™\ufe0f 👍🏽 👩\u200d👧 שָׁלוֹם مُحَمَّد नमस्ते क़ ไทย ភាសា မြန်မာ
"""


@cache
def _names() -> tuple[str, ...]:
    found = set()
    plain = [name for name in sorted(localedata.locale_identifiers()) if "_" not in name]
    for name in plain[::4]:
        locale = Locale.parse(name)
        for names in (locale.languages, locale.territories, locale.currencies):
            found |= {str(text) for text in names.values()}
    return tuple(sorted(found - {""}))


def even(text: str) -> bool:
    """No long run of one character, which may be cut in several equally good ways."""
    return not any(character * 3 in text for character in set(text))


@cache
def lines(count: int, seed: int = 7) -> list[str]:
    """CLDR names as they are and decomposed, words with odd spaces, random characters, edges."""
    draw = random.Random(seed)
    names = _names()
    assigned = [c for c in range(1, 0x30000) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
    vocabulary = WORDS.split()
    low = [c for c in assigned if c < 0x3000]

    def phrase() -> str:
        gap = draw.choice([" ", " ", " ", ", ", " - ", "  ", "\n", ". ", "/"])
        return gap.join(draw.choice(names) for _ in range(draw.randint(1, 8)))

    def decomposed() -> str:
        return unicodedata.normalize(draw.choice(["NFD", "NFKD"]), phrase())

    def words() -> str:
        gap = draw.choice([" ", "  ", "\n", "\t", "\u00a0", "\u3000", "\u200b"])
        return gap.join(draw.choice(vocabulary) for _ in range(draw.randint(1, 14)))

    def noise() -> str:
        pool = draw.choice([low, low, assigned])
        size = draw.randint(1, 30)
        return "".join(
            chr(draw.choice(pool)) if draw.random() < 0.7 else draw.choice(" aeo, 19.")
            for _ in range(size)
        )

    def spaced() -> str:
        text = phrase().replace(" ", " " * draw.randint(1, 4))
        return " " * draw.randint(0, 3) + text + " " * draw.randint(0, 3)

    makers = [phrase, phrase, phrase, phrase, words, words, noise, noise, decomposed, spaced]
    return EDGES + [makers[i % len(makers)]() for i in range(count - len(EDGES))]
