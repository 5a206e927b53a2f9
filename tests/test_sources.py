"""Registry, split rule and CLDR reader that the built-in corpora share."""

import datetime
import subprocess
import sys

import pytest

from zoo.data import sources
from zoo.data.sources import cldr, dates
from zoo.errors import DataError


@pytest.mark.parametrize("name", sources.SOURCES)
@pytest.mark.parametrize("split", sources.SPLITS)
def test_a_source_gives_the_same_examples_again(name, split):
    options = {} if name == "pydocs" else {"size": 200}
    first = sources.build(name, split, seed=3, **options)
    assert first
    assert first == sources.build(name, split, seed=3, **options)
    assert first != sources.build(name, split, seed=4, **options)


def test_an_unknown_source_names_the_nearest():
    with pytest.raises(DataError, match=r"'datse'.*did you mean 'dates'"):
        sources.get("datse")


@pytest.mark.parametrize("name", sources.SOURCES)
def test_an_unknown_split_or_option_is_an_error(name):
    with pytest.raises(DataError, match="split is 'dev'"):
        sources.build(name, "dev")
    with pytest.raises(DataError, match="colour"):
        sources.build(name, "test", colour="red")


def test_a_size_may_differ_by_split():
    size = {"train": 30, "test": 20}
    assert len(sources.build("dates", "train", size=size)) == 30
    assert len(sources.build("dates", "test", size=size)) == 20
    assert len(sources.build("dates", "validation", size=size)) == dates.SIZES["validation"]
    with pytest.raises(DataError, match="split is 'dev'"):
        sources.build("dates", "train", size={"dev": 3})
    with pytest.raises(DataError, match="size is 'many'"):
        sources.build("dates", "train", size="many")


def test_splits_hold_about_their_share_and_do_not_move():
    splits = [sources.split_of(f"key {number}", 0.1, 0.05) for number in range(4000)]
    assert abs(splits.count("test") / 4000 - 0.1) < 0.02
    assert abs(splits.count("validation") / 4000 - 0.05) < 0.02
    # Pinned: another value would mean that published measurements are on other data.
    pinned = {"1950-01-01": "train", "1950-01-29": "test", "1950-01-30": "validation"}
    assert {day: dates._split_of(datetime.date.fromisoformat(day)) for day in pinned} == pinned


def test_cldr_does_not_depend_on_what_was_read_before():
    script = (
        "from babel import Locale\n"
        "for name in ('he', 'ja'):\n"
        "    Locale.parse(name).months['stand-alone']['wide'][1]\n"
        "from zoo.data.sources import cldr\n"
        "print(cldr.load('de')['months']['stand-alone']['wide'][3])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "März" == cldr.load("de")["months"]["stand-alone"]["wide"][3]


def test_cldr_inherits_and_tells_its_own():
    assert cldr.load("en_GB")["date_formats"]["short"].pattern == "dd/MM/y"
    assert cldr.load("en_GB")["months"]["format"]["wide"][3] == "March"
    assert cldr.own("de")["territories"]["AT"] == "Österreich"
    assert "Q1" not in str(cldr.own("ta").get("languages"))
