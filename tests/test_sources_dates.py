"""Dates: what a text means is decided by rule, and no rule is left to chance."""

import datetime
import itertools
import time
from collections import defaultdict

import pytest

from zoo.data.sources import dates
from zoo.errors import DataError


@pytest.fixture(scope="module")
def sample():
    """Many examples of every split, with two seeds."""
    return {
        split: [example for seed in (0, 1) for example in dates.build(split, seed=seed, size=size)]
        for split, size in {"train": 40_000, "validation": 8_000, "test": 8_000}.items()
    }


def test_no_day_is_in_two_splits(sample):
    days = {split: {example["date"] for example in examples} for split, examples in sample.items()}
    for a, b in itertools.combinations(days.values(), 2):
        assert not a & b
    every = {split: set(dates._days(split)) for split in sample}
    assert sum(map(len, every.values())) == len(set().union(*every.values())) == 36525


def test_an_untagged_text_has_one_meaning_in_all_locales_and_splits(sample):
    meanings = defaultdict(set)
    for example in itertools.chain(*sample.values()):
        if not example["tagged"]:
            meanings[dates.normalize(example["source"])].add(example["target"])
    assert len(meanings) > 30_000
    assert {text: targets for text, targets in meanings.items() if len(targets) > 1} == {}


def test_a_tagged_text_has_one_meaning(sample):
    meanings = defaultdict(set)
    for example in itertools.chain(*sample.values()):
        if example["tagged"]:
            tag, _, text = example["source"].partition(": ")
            assert tag == example["locale"]
            meanings[tag, dates.normalize(text)].add(example["target"])
    assert {text: targets for text, targets in meanings.items() if len(targets) > 1} == {}


def test_every_ambiguous_text_is_tagged_and_not_every_clear_one(sample):
    examples = list(itertools.chain(*sample.values()))
    for example in examples[::7]:
        readings = dates.readings(example["source"].removeprefix(f"{example['locale']}: "))
        assert datetime.date.fromisoformat(example["date"]) in readings
        assert example["tagged"] or len(readings) == 1
    for locale in dates.LOCALES:
        tagged = [example["tagged"] for example in examples if example["locale"] == locale]
        assert 0.3 < sum(tagged) / len(tagged) < 0.85, locale


@pytest.mark.parametrize(
    ("text", "meanings"),
    [
        ("3/4/25", {"2025-04-03", "2025-03-04"}),  # a year has two digits or four
        ("03/04/25", {"2025-04-03", "2025-03-04", "2003-04-25"}),
        ("03.04.2025", {"2025-04-03", "2025-03-04"}),
        ("04-04-2025", {"2025-04-04"}),
        ("13/04/2025", {"2025-04-13"}),
        ("2025-03-04", {"2025-03-04"}),
        ("20250304", {"2025-03-04"}),
        ("31.12.49", {"2049-12-31"}),
        ("31.12.50", {"1950-12-31"}),
        ("30.02.2025", set()),
        ("17 listopada 2019", {"2019-11-17", "2019-10-17"}),  # Polish, Croatian
        ("14 lip 1964", {"1964-07-14", "1964-06-14"}),
        ("mar, 4 mar 2025", {"2025-03-04"}),  # martes is no month
        ("20 de noviembre de 1982", {"1982-11-20"}),  # Catalan "de nov" is not in it
        ("MAIO 3, 2025", {"2025-05-03"}),
        ("٣ أبريل ٢٠٢٥", {"2025-04-03"}),
        ("2025年11月3日", {"2025-11-03"}),
        ("the 3rd of March, 2025", {"2025-03-03"}),
        ("3 Mar 25", {"2025-03-03"}),
        ("03 Mar 25", {"2025-03-03", "2003-03-25"}),
        ("hello", set()),
    ],
)
def test_readings(text, meanings):
    assert {day.isoformat() for day in dates.readings(text)} == meanings


def test_no_locale_names_two_months_alike():
    for locale in dates.LOCALES:
        writer = dates._writer(locale)
        names = defaultdict(set)
        for month, name in itertools.chain(*(table.items() for table in writer.months.values())):
            names[dates.normalize(name).rstrip(".")].add(month)
        assert all(len(months) == 1 for months in names.values()), locale


def test_no_locale_writes_year_day_month_in_numbers():
    for locale in dates.LOCALES:
        writer = dates._writer(locale)
        for template in itertools.chain(*writer.templates.values()):
            named = "{Mw}" in template or "{Ma}" in template  # Latvian: "2025. gada 4. marts"
            orders = {"dmy", "mdy", "ymd"} | ({"ydm"} if named else set())
            assert dates._order(template) in orders, (locale, template)


def test_two_digits_of_a_year_come_first_only_where_cldr_writes_them():
    short = {}
    for locale in dates.LOCALES:
        templates = dates._writer(locale).templates
        short[locale] = any(
            t.startswith("{yy}") for t in (*templates["numeric"], *templates["short"])
        )
    assert {locale for locale, found in short.items() if found} == {"ko"}


def test_all_locales_styles_digits_and_tags_occur(sample):
    train = sample["train"]
    assert len(dates.LOCALES) >= 40
    assert {example["locale"] for example in train} == set(dates.LOCALES)
    assert {example["style"] for example in train} == set(dates.STYLES)
    text = "".join(example["source"] for example in train)
    assert set("٠٩۰۹०९০৯๐๙") <= set(text)
    counts = defaultdict(int)
    for example in train:
        counts[example["locale"]] += 1
    assert max(counts.values()) - min(counts.values()) <= 2


def test_targets_are_the_dates_and_sources_are_unique():
    examples = dates.build("test", size=3000)
    assert all(example["target"] == example["date"] for example in examples)
    assert len({example["source"] for example in examples}) == len(examples)


def test_some_locales_only_and_tags_always():
    examples = dates.build("train", size=300, locales=["de", "ja"], tag_share=1.0)
    assert {example["locale"] for example in examples} == {"de", "ja"}
    assert all(example["tagged"] for example in examples)


def test_bad_options_are_errors():
    with pytest.raises(DataError, match="xx_YY"):
        dates.build("train", locales=["de", "xx_YY"])
    with pytest.raises(DataError, match="size is 0"):
        dates.build("train", size=0)


def test_a_size_that_cannot_be_reached_is_an_error_and_no_endless_loop(monkeypatch):
    monkeypatch.setattr(dates, "_days", lambda split: (datetime.date(2025, 3, 4),))
    with pytest.raises(DataError, match="lower it"):
        dates.build("test", size=3_000, locales=["de"])


def test_making_the_training_set_takes_seconds():
    dates.build("train", size=100)  # names and patterns
    start = time.process_time()
    dates.build("train", size=20_000)
    assert time.process_time() - start < 5  # 0.5 s measured
