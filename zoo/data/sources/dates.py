"""Dates as people write them in 41 locales, and the ISO date they mean.

`"en_US: 3/4/25" -> "2025-03-04"`, `"mardi 4 mars 2025" -> "2025-03-04"`. Texts are made from the
patterns, names and digits of CLDR (through Babel), Gregorian calendar, for every day from
1950-01-01 to 2049-12-31; a two-digit year means the year of that window. A day belongs to one split
for ever (stable hash of its ISO form).

A text without a tag is asked only if it can mean one day. `readings` decides that, by rule and not
by locale: it takes the words of a text for months or weekdays of any locale and its numbers in the
orders day-month-year, month-day-year and year-month-day, whatever separates them. Every other text
carries its locale: `"en_GB: 3/4/25"`.
"""

import datetime
import random
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import accumulate
from typing import Any

from babel.dates import tokenize_pattern

from zoo.data.sources import Split, check_split, cldr, size_of, split_of
from zoo.errors import DataError

LOCALES = (
    *(
        "en_US",
        "en_GB",
        "de",
        "fr",
        "es",
        "it",
        "pt",
        "ca",
        "ro",
        "nl",
        "sv",
        "da",
        "nb",
        "is",
        "fi",
        "et",
        "lv",
        "lt",
    ),
    *(
        "pl",
        "cs",
        "sk",
        "sl",
        "hr",
        "hu",
        "tr",
        "el",
        "ru",
        "uk",
        "bg",
        "ar_EG",
        "he",
        "fa",
        "hi",
        "bn",
        "th",
    ),
    *("ja", "ko", "zh", "zh_Hant", "vi", "id"),
)
FIRST_YEAR, LAST_YEAR = 1950, 2049  # one century, so that two digits name one year
SIZES = {"train": 204_800, "validation": 2_048, "test": 4_100}
TEST_SHARE, VALIDATION_SHARE = 0.05, 0.025

# Share of each style among the examples; a style that a locale lacks gives way to `long`.
STYLES = {
    "short": 0.12,
    "medium": 0.11,
    "long": 0.12,
    "full": 0.12,
    "weekday": 0.10,
    "numeric": 0.20,
    "named": 0.15,
    "ordinal": 0.03,
    "iso": 0.03,
    "compact": 0.02,
}
_ORDINALS = {
    "en": lambda day: (
        f"{day}{'th' if 10 < day < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th')}"
    ),
    "fr": lambda day: "1er" if day == 1 else str(day),
    "it": lambda day: "1º" if day == 1 else str(day),
    "pt": lambda day: "1º" if day == 1 else str(day),
    "nl": lambda day: f"{day}e",
    "sv": lambda day: f"{day}:e",
}
_ORDINAL_TEMPLATES = {
    "en": (
        *("{Mw} {o}, {y}", "{o} {Mw} {y}", "{o} of {Mw} {y}"),
        *("the {o} of {Mw}, {y}", "{Ew}, {Mw} {o}, {y}"),
    ),
    "it": ("{o} {Mw} {y}", "{Ew} {o} {Mw} {y}"),
    "pt": ("{o} de {Mw} de {y}",),
}  # fmt: skip
_NATIVE_ZERO = {"arab": 0x660, "arabext": 0x6F0, "beng": 0x9E6, "deva": 0x966, "thai": 0xE50}
_SEPARATORS = (
    ("/", "/", ""),
    ("-", "-", ""),
    (".", ".", ""),
    (". ", ". ", ""),
    (" ", " ", ""),
    (".", ".", "."),
)
_FIELDS = {
    ("y", 1): "y", ("y", 4): "y", ("y", 2): "yy",
    ("M", 1): "M", ("M", 2): "MM", ("M", 3): "Ma", ("M", 4): "Mw",
    ("L", 1): "M", ("L", 2): "MM", ("L", 3): "Ma", ("L", 4): "Mw",
    ("d", 1): "d", ("d", 2): "dd", ("G", 1): "G",
    ("E", 1): "Ea", ("E", 3): "Ea", ("E", 4): "Ew", ("c", 3): "Ea", ("c", 4): "Ew",
}  # fmt: skip
_BIDI_MARKS = dict.fromkeys(map(ord, "\u200e\u200f\u061c"))
_SPACES = str.maketrans("\u00a0\u202f\u2009", "   ")
_TO_PLAIN = {zero + digit: str(digit) for zero in _NATIVE_ZERO.values() for digit in range(10)}


@dataclass(frozen=True)
class _Writer:
    """How one locale writes a date: templates by style, names, native digits."""

    locale: str
    order: str  # of a date in numbers: "dmy", "mdy" or "ymd"
    templates: dict[str, tuple[str, ...]]
    months: dict[str, dict[int, str]]
    weekdays: dict[str, dict[int, str]]
    era: str
    digits: dict[int, int] | None
    ordinal: Any

    def fields(self, day: datetime.date) -> dict[str, str]:
        return {
            "y": str(day.year),
            "yy": f"{day.year % 100:02}",
            "M": str(day.month),
            "MM": f"{day.month:02}",
            "Ma": self.months["abbreviated"][day.month],
            "Mw": self.months["wide"][day.month],
            "d": str(day.day),
            "dd": f"{day.day:02}",
            "Ea": self.weekdays["abbreviated"][day.weekday()],
            "Ew": self.weekdays["wide"][day.weekday()],
            "G": self.era,
            "o": self.ordinal(day.day) if self.ordinal else str(day.day),
        }


def _template(pattern: str) -> str:
    """A CLDR pattern as a `str.format` template: `d. MMMM y` becomes `{d}. {Mw} {y}`."""
    parts = []
    for kind, value in tokenize_pattern(pattern):
        if kind == "field":
            parts.append("{" + _FIELDS[value] + "}")
        else:
            parts.append(value.replace("{", "{{").replace("}", "}}"))
    return "".join(parts)


def _order(template: str) -> str:
    return "".join(
        field[0].lower() for field in re.findall(r"\{(y|M|d|o)[yMdaw]?\}", template)
    ).replace("o", "d")


@cache
def _writer(locale: str) -> _Writer:
    data = cldr.load(locale)
    months = {width: dict(data["months"]["format"][width]) for width in ("wide", "abbreviated")}
    weekdays = {width: dict(data["days"]["format"][width]) for width in ("wide", "abbreviated")}
    lengths = {
        name: _template(data["date_formats"][name].pattern)
        for name in ("short", "medium", "long", "full")
    }
    skeletons = {
        name: _template(data["datetime_skeletons"][name].pattern)
        for name in ("yMd", "yMEd", "yMMMd", "yMMMEd")
    }
    order = _order(lengths["short"])
    # Where the year comes first it is written in full, unless CLDR itself writes two digits: what
    # 03.04.05 means in Lithuania is anybody's guess.
    years = ("{y}", "{yy}") if order != "ymd" or "{yy}" in lengths["short"] else ("{y}",)
    numeric = []
    for first, second, end in _SEPARATORS:
        for parts in (("{d}", "{M}"), ("{dd}", "{MM}")):
            by_letter = dict(zip("dm", parts, strict=True))
            for year in years:
                a, b, c = (by_letter.get(letter, year) for letter in order)
                numeric.append(a + first + b + second + c + end)
    templates = {name: (template,) for name, template in lengths.items()}
    templates |= {
        "weekday": (skeletons["yMMMEd"], skeletons["yMEd"]),
        "medium": (lengths["medium"], skeletons["yMMMd"], skeletons["yMd"]),
        "numeric": tuple(numeric),
        "iso": ("{y}-{MM}-{dd}",),
        "compact": ("{y}{MM}{dd}",),
    }
    if not any(character.isdigit() for character in months["abbreviated"][3]):
        named = [
            "{d} {M} {y}",
            "{dd}-{M}-{y}",
            "{d}/{M}/{y}",
            "{d}. {M} {y}",
            "{d}.{M}.{y}",
            "{E} {d} {M} {y}",
        ]
        if _order(lengths["long"]) == "ymd":
            named += ["{y} {M} {d}", "{y}. {M} {d}.", "{y}-{M}-{dd}", "{y} {M} {d}, {E}"]
        else:
            named += ["{M} {d}, {y}", "{M} {d} {y}", "{E}, {M} {d}, {y}"]
        templates["named"] = tuple(
            template.replace("{M}", month).replace("{E}", weekday)
            for template in named
            for month, weekday in (("{Ma}", "{Ea}"), ("{Mw}", "{Ew}"))
        )
    language = locale.partition("_")[0]
    if language in _ORDINALS:
        templates["ordinal"] = _ORDINAL_TEMPLATES.get(
            language, ("{o} {Mw} {y}", "{o} {Ma} {y}", "{Ew} {o} {Mw} {y}")
        )
    zero = _NATIVE_ZERO.get(data["default_numbering_system"]) or _NATIVE_ZERO.get(
        data["numbering_systems"]["native"]
    )
    return _Writer(
        locale=locale,
        order=order,
        templates=templates,
        months=months,
        weekdays=weekdays,
        era=data["eras"]["abbreviated"][1],
        digits={ord("0") + digit: zero + digit for digit in range(10)} if zero else None,
        ordinal=_ORDINALS.get(language),
    )


def normalize(text: str) -> str:
    """The form in which two texts count as the same: no case, accents or marks, ASCII digits."""
    text = unicodedata.normalize("NFD", text.translate(_BIDI_MARKS).translate(_TO_PLAIN).casefold())
    text = "".join(c for c in text if not "\u0300" <= c <= "\u036f").replace("ı", "i")
    return " ".join(text.split())


@lru_cache(maxsize=1)
def _vocabulary() -> tuple[dict[str, frozenset[int]], re.Pattern[str]]:
    """What names mean in any locale (months 1-12, a weekday 0), and the pattern that finds them."""
    names: dict[str, set[int]] = {}
    for locale in LOCALES:
        writer = _writer(locale)
        for width in ("wide", "abbreviated"):
            meanings = [
                *writer.months[width].items(),
                *((0, name) for name in writer.weekdays[width].values()),
            ]
            for meaning, name in meanings:
                for form in {normalize(name), normalize(name).rstrip(".")}:
                    names.setdefault(form, set()).add(meaning)
    longest_first = sorted(names, key=len, reverse=True)
    # A name ends where its word ends: Catalan "de nov" is not in Spanish "de noviembre".
    pattern = re.compile("(?:" + "|".join(map(re.escape, longest_first)) + r")(?![a-z])|\d+")
    return {name: frozenset(meanings) for name, meanings in names.items()}, pattern


def _year(number: str) -> int | None:
    if len(number) == 4 and FIRST_YEAR <= int(number) <= LAST_YEAR:
        return int(number)
    if len(number) == 2:
        return FIRST_YEAR + (int(number) - FIRST_YEAR) % 100
    return None


def _date(year: str, month: str, day: str) -> datetime.date | None:
    full_year = _year(year)
    if full_year is None or len(month) > 2 or len(day) > 2:
        return None
    try:
        return datetime.date(full_year, int(month), int(day))
    except ValueError:
        return None


def readings(text: str) -> set[datetime.date]:
    """Every day that an untagged text can mean in some locale; one reading needs no tag.

    Numbers are read in the orders day-month-year, month-day-year and year-month-day (no locale here
    writes year-day-month), a name as the month or weekday that it is in any of `LOCALES`.
    """
    meanings, pattern = _vocabulary()
    words, numbers = [], []
    for token in pattern.findall(normalize(text)):
        if token in meanings:
            words.append(meanings[token])
        else:
            numbers.append(token)
    candidates = []
    if len(numbers) == 2:
        a, b = numbers
        for index, word in enumerate(words):
            if all(0 in other for other in words[:index] + words[index + 1 :]):
                for month in map(str, word - {0}):
                    candidates += [(b, month, a), (a, month, b)]
    elif all(0 in word for word in words):
        if len(numbers) == 3:
            a, b, c = numbers
            candidates = [(c, b, a), (c, a, b), (a, b, c)]
        elif len(numbers) == 1 and len(numbers[0]) == 8:
            n = numbers[0]
            candidates = [(n[4:], n[2:4], n[:2]), (n[4:], n[:2], n[2:4]), (n[:4], n[4:6], n[6:])]
    return {day for candidate in candidates if (day := _date(*candidate))}


def _split_of(day: datetime.date) -> str:
    return split_of(f"dates {day.isoformat()}", TEST_SHARE, VALIDATION_SHARE)


@cache
def _days(split: str) -> tuple[datetime.date, ...]:
    first, last = datetime.date(FIRST_YEAR, 1, 1), datetime.date(LAST_YEAR, 12, 31)
    every = map(datetime.date.fromordinal, range(first.toordinal(), last.toordinal() + 1))
    return tuple(day for day in every if _split_of(day) == split)


def _cased(text: str, locale: str, draw: float) -> str:
    if draw < 0.70:
        return text
    turkish = locale == "tr"
    if draw < 0.85:
        return (text.replace("İ", "i").replace("I", "ı") if turkish else text).lower()
    if draw < 0.95:
        return (text.replace("i", "İ").replace("ı", "I") if turkish else text).upper()
    return text[:1].upper() + text[1:]


def _spaced(text: str, rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.8:
        return text
    if kind < 0.87:
        return text.replace(" ", "  ")
    if kind < 0.94:
        return " " * rng.randint(1, 2) + text + " " * rng.randint(0, 2)
    return text.replace(", ", ",").replace(". ", ".").strip(" .")


def _write(writer: _Writer, day: datetime.date, style: str, rng: random.Random) -> str:
    templates = writer.templates[style]
    # The pattern that CLDR gives for a length comes first and makes up half of its style.
    first = style in ("medium", "weekday") and rng.random() < 0.5
    template = templates[0] if first or len(templates) == 1 else rng.choice(templates)
    if style in ("short", "medium", "long", "full", "weekday"):
        variation = rng.random()
        if variation < 0.12:
            template = template.replace("{d}", "{dd}").replace("{M}", "{MM}")
        elif variation < 0.24:
            template = template.replace("{dd}", "{d}").replace("{MM}", "{M}")
        elif variation < 0.36:
            template = template.replace(",", "").replace("،", "")
    text = template.format(**writer.fields(day)).replace("..", ".")  # "3.Aug..2025"
    if style in ("iso", "compact"):
        return text
    text = _cased(text, writer.locale, rng.random())
    if rng.random() < 0.5:
        text = text.translate(_BIDI_MARKS).translate(_SPACES)
    if rng.random() < 0.05:  # typed without accents
        folded = unicodedata.normalize("NFD", text)
        text = unicodedata.normalize(
            "NFC", "".join(c for c in folded if not "\u0300" <= c <= "\u036f")
        )
    if writer.digits and rng.random() < 0.5:
        text = text.translate(writer.digits)
    return _spaced(text, rng)


def build(
    split: Split,
    seed: int = 0,
    size: int | Mapping[str, int] | None = None,
    locales: list[str] | None = None,
    tag_share: float = 0.5,
) -> list[dict[str, Any]]:
    """Examples `{"source", "target", "locale", "date", "style", "tagged"}`, equally many a locale.

    Args:
        split: `train`, `validation` or `test`; they share no calendar day.
        seed: which texts are drawn; the days of a split do not depend on it.
        size: number of examples, one for all splits or a mapping; by default `SIZES`.
        locales: some of `LOCALES`, by default all.
        tag_share: how often a text that needs no tag carries one all the same.

    Raises:
        DataError: an unknown split or locale, or a size below one.
    """
    check_split(split)
    locales = list(locales or LOCALES)
    if unknown := sorted(set(locales) - set(LOCALES)):
        raise DataError(
            f"locales {unknown} are not known to the source 'dates', expected some of {LOCALES}"
        )
    size = size_of(size, split, SIZES)
    rng = random.Random(f"dates-{split}-{seed}")
    days, styles, weights = _days(split), list(STYLES), list(accumulate(STYLES.values()))
    examples: list[dict[str, Any]] = []
    seen: set[str] = set()
    attempts = 0
    while len(examples) < size:
        attempts += 1
        if attempts > 20 * size + 1000:
            raise DataError(
                f"size is {size}, but {split} in {len(locales)} locales holds about "
                f"{len(examples)} texts; lower it"
            )
        writer = _writer(locales[len(examples) % len(locales)])
        day = rng.choice(days)
        style = rng.choices(styles, cum_weights=weights)[0]
        if style not in writer.templates:
            style = "long"
        text = _write(writer, day, style, rng)
        tagged = rng.random() < tag_share or readings(text) != {day}
        source = f"{writer.locale}: {text}" if tagged else text
        if source in seen:
            continue
        seen.add(source)
        iso = day.isoformat()
        examples.append(
            {
                "source": source,
                "target": iso,
                "locale": writer.locale,
                "date": iso,
                "style": style,
                "tagged": tagged,
            }
        )
    rng.shuffle(examples)
    return examples
