"""Short strings and the language they are written in, for 61 languages.

Names of languages, countries, scripts, currencies, units and time zones, months and weekdays, and
what CLDR's patterns make of them: dates, "3 days ago", "5 kilometres", amounts of money, lists of
names (through Babel).

One item, such as the country AT or a span of kilometres, is written in every language and lies in
one split for all of them, so a test asks for names that training did not show in any language. Two
rules keep the labels clean: a string that two languages write alike is left out, and one that items
of two splits share stays in training only.
"""

import datetime
import random
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from babel.dates import tokenize_pattern

from zoo.data.sources import SPLITS, Split, check_split, cldr, size_of, split_of
from zoo.errors import DataError

# Left out: pairs that a reader cannot tell apart by a name (Bosnian and Croatian, Serbian in Latin
# letters, the two Norwegians, the two scripts of Chinese), and languages for which CLDR itself has
# few names.
LANGUAGES = (
    *(
        "af",
        "am",
        "ar",
        "az",
        "be",
        "bg",
        "bn",
        "ca",
        "cs",
        "cy",
        "da",
        "de",
        "el",
        "en",
        "es",
        "et",
    ),
    *(
        "eu",
        "fa",
        "fi",
        "fil",
        "fr",
        "ga",
        "gl",
        "he",
        "hi",
        "hr",
        "hu",
        "hy",
        "id",
        "is",
        "it",
        "ja",
    ),
    *(
        "ka",
        "kk",
        "ko",
        "lt",
        "lv",
        "mk",
        "mn",
        "mr",
        "ms",
        "nb",
        "nl",
        "pl",
        "pt",
        "ro",
        "ru",
        "sk",
    ),
    *("sl", "sq", "sr", "sv", "sw", "ta", "th", "tr", "uk", "ur", "uz", "vi", "zh"),
)
SIZES = {"train": 150_000, "validation": 3_050, "test": 12_200}
TEST_SHARE, VALIDATION_SHARE = 0.08, 0.04

_DATA_FILE = {"nb": "no"}  # Bokmål's data lie in the file of the macrolanguage
_NUMBERS = (*range(2, 13), 15, 20, 21, 25, 30, 40, 50, 60, 75, 90, 100, 250, 500, 1000)
_DATES, _LISTS = 1000, 1200  # composed items, in every language
_DATE_STYLES = ("full", "long", "yMMMM", "MMMMd", "yMMMEd")
_FIELDS = {
    "y": lambda data, day, width: str(day.year if width != 2 else day.year % 100),
    "M": lambda data, day, width: _numbered(data["months"]["format"], day.month, width),
    "L": lambda data, day, width: _numbered(data["months"]["stand-alone"], day.month, width),
    "d": lambda data, day, width: f"{day.day:0{width}}",
    "E": lambda data, day, width: data["days"]["format"][_width(width)][day.weekday()],
    "c": lambda data, day, width: data["days"]["stand-alone"][_width(width)][day.weekday()],
    "G": lambda data, day, width: data["eras"]["abbreviated"][1],
}  # fmt: skip


def _width(letters: int) -> str:
    return "wide" if letters == 4 else "abbreviated"


def _numbered(names: Mapping[str, Any], number: int, width: int) -> str:
    return names[_width(width)][number] if width >= 3 else f"{number:0{width}}"


def normalize(text: str) -> str:
    """The form in which two strings count as the same: not by case, spacing or composition."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _date(data: Mapping[str, Any], day: datetime.date, style: str) -> str:
    formats = data["date_formats"] if style in data["date_formats"] else data["datetime_skeletons"]
    parts = tokenize_pattern(formats[style].pattern)
    return "".join(
        value if kind == "chars" else _FIELDS[value[0]](data, day, value[1])
        for kind, value in parts
    )


def _names(own: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Every name that a language has of its own, by what it names."""
    names = {}
    for kind in ("languages", "territories", "scripts", "variants", "currency_names"):
        names |= {(kind, str(code)): name for code, name in own.get(kind, {}).items()}
    for unit, widths in own.get("unit_display_names", {}).items():
        if "long" in widths:
            names["units", unit] = widths["long"]
    for zone, widths in own.get("meta_zones", {}).items():
        names |= {
            ("zones", f"{zone} {kind}"): name for kind, name in widths.get("long", {}).items()
        }
    for kind in ("months", "days", "quarters"):
        for context, widths in own.get(kind, {}).items():
            if isinstance(widths, dict) and isinstance(widths.get("wide"), dict):
                names |= {
                    (kind, f"{context} {number}"): name for number, name in widths["wide"].items()
                }
    return {key: name for key, name in names.items() if isinstance(name, str)}


class _Language:
    """The texts of one language."""

    def __init__(self, label: str) -> None:
        name = _DATA_FILE.get(label, label)
        self.own, self.data = cldr.own(name), cldr.load(name)
        self.names = _names(self.own)
        self.plural = self.data["plural_form"]

    def counted(self, patterns: Mapping[str, str] | None, number: int) -> str | None:
        pattern = (patterns or {}).get(self.plural(number)) or (patterns or {}).get("other")
        return pattern.replace("{0}", str(number)) if pattern else None

    def write(self, kind: str, value: Any) -> str | None:
        """The text of an item, None if the language has no words of its own for it."""
        if kind == "name":
            return self.names.get(value)
        if kind == "unit":
            unit, number = value
            return self.counted(self.own.get("unit_patterns", {}).get(unit, {}).get("long"), number)
        if kind == "relative":
            field, direction, number = value
            return self.counted(
                self.own.get("date_fields", {}).get(field, {}).get(direction), number
            )
        if kind == "money":
            code, number = value
            names = self.own.get("currency_names_plural", {}).get(code) or {}
            name = (
                names.get(self.plural(number))
                or names.get("other")
                or self.names.get(("currency_names", code))
            )
            patterns = self.data["currency_unit_patterns"]
            pattern = patterns.get(self.plural(number)) or patterns.get("other") or "{0} {1}"
            return pattern.replace("{0}", str(number)).replace("{1}", name) if name else None
        if kind == "date":
            return _date(self.data, *value)
        names = [self.names.get(key) for key in value]
        if not all(names):
            return None
        patterns = self.data["list_patterns"]["standard"]
        if len(names) == 2:
            return patterns["2"].replace("{0}", names[0]).replace("{1}", names[1])
        tail = patterns["end"].replace("{0}", names[1]).replace("{1}", names[2])
        return patterns["start"].replace("{0}", names[0]).replace("{1}", tail)


def _split(key: str) -> str:
    return split_of(f"language {key}", TEST_SHARE, VALIDATION_SHARE)


def _items(keys: list[tuple[str, str]]) -> Iterator[tuple[str, str, Any]]:
    """(split, kind, value) of every item, the same in each language and each process."""
    rng = random.Random("language")
    by_split: dict[str, dict[str, list[tuple[str, str]]]] = defaultdict(lambda: defaultdict(list))
    for key in keys:
        kind, code = key
        split = _split(f"{kind} {code.partition(' ')[0] if kind == 'zones' else code}")
        by_split[split][kind].append(key)
        yield split, "name", key
        if kind == "units":
            for number in rng.sample(_NUMBERS, 5):
                yield split, "unit", (code, number)
        elif kind == "currency_names":
            for number in rng.sample(_NUMBERS, 2):
                yield split, "money", (code, number)
    spans = ("year", "quarter", "month", "week", "day", "hour", "minute", "second")
    for field in (*spans, "mon", "tue", "wed", "thu", "fri", "sat", "sun"):
        for direction in ("past", "future"):
            for number in rng.sample(_NUMBERS, 16 if field in spans else 6):
                yield (
                    _split(f"{field} {direction} {number}"),
                    "relative",
                    (field, direction, number),
                )
    first = datetime.date(1950, 1, 1).toordinal()
    for index, offset in enumerate(rng.sample(range(36525), _DATES)):
        day = datetime.date.fromordinal(first + offset)
        yield _split(f"day {day}"), "date", (day, _DATE_STYLES[index % len(_DATE_STYLES)])
    shares = {"test": TEST_SHARE, "validation": VALIDATION_SHARE}
    shares["train"] = 1 - sum(shares.values())
    for split in SPLITS:
        for index in range(round(_LISTS * shares[split])):
            kind = ("territories", "languages", "currency_names")[index % 3]
            yield split, "list", tuple(rng.sample(by_split[split][kind], 2 + index % 2))


@lru_cache(maxsize=1)
def _corpus() -> dict[str, dict[str, list[str]]]:
    """Texts by split and label, after the two rules."""
    languages = {label: _Language(label) for label in LANGUAGES}
    # Names that only a few languages have teach little and would give them more items than others.
    shared: dict[tuple[str, str], int] = defaultdict(int)
    for language in languages.values():
        for key in language.names:
            shared[key] += 1
    keys = sorted(key for key, count in shared.items() if count >= len(LANGUAGES) // 3)
    labels: dict[str, set[str]] = defaultdict(set)
    splits: dict[str, set[str]] = defaultdict(set)
    texts: dict[str, str] = {}
    for split, kind, value in _items(keys):
        for label, language in languages.items():
            text = language.write(kind, value)
            if text is None or sum(map(str.isalpha, text)) < 2:
                continue
            normal = normalize(text)
            labels[normal].add(label)
            splits[normal].add(split)
            texts.setdefault(normal, text.strip())
    corpus: dict[str, dict[str, list[str]]] = {split: defaultdict(list) for split in SPLITS}
    for normal, text in texts.items():
        if len(labels[normal]) == 1:
            split = next(iter(splits[normal])) if len(splits[normal]) == 1 else "train"
            corpus[split][next(iter(labels[normal]))].append(text)
    return corpus


def build(
    split: Split,
    seed: int = 0,
    size: int | Mapping[str, int] | None = None,
    languages: list[str] | None = None,
) -> list[dict[str, Any]]:
    """Examples `{"text", "label"}`, languages in shares as equal as there are strings.

    Args:
        split: `train`, `validation` or `test`; no string is in two of them.
        seed: which strings are drawn and in what order; what a split holds does not depend on it.
        size: number of examples at most, one for all splits or a mapping; by default `SIZES`.
        languages: some of `LANGUAGES`, by default all.

    Raises:
        DataError: an unknown split or language, or a size below one.
    """
    check_split(split)
    languages = list(languages or LANGUAGES)
    if unknown := sorted(set(languages) - set(LANGUAGES)):
        raise DataError(
            f"languages {unknown} are not known to the source 'language', expected some of "
            f"{', '.join(LANGUAGES)}"
        )
    size = size_of(size, split, SIZES)
    rng = random.Random(f"language-{split}-{seed}")
    ranked = []
    for label in languages:
        texts = list(_corpus()[split][label])
        rng.shuffle(texts)
        ranked += [(rank, {"text": text, "label": label}) for rank, text in enumerate(texts)]
    ranked.sort(key=lambda pair: pair[0])
    examples = [example for _, example in ranked[:size]]
    rng.shuffle(examples)
    return examples
