"""Frozen dataclasses from mappings: what is wrong is named, all of it, in one error."""

from dataclasses import field
from typing import Literal

import pytest

from zoo.config import from_mapping, frozen, nearest, to_mapping
from zoo.errors import ConfigError


@frozen
class Inner:
    learning_rate: float = 1e-3
    kind: Literal["linear", "cosine"] = "linear"
    steps: int | None = None


@frozen
class Outer:
    name: str
    inner: Inner = Inner()
    maybe: Inner | None = None
    several: tuple[Inner, ...] = ()
    by_name: dict[str, Inner] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.inner.steps == 7:
            raise ValueError("seven steps are not allowed")


FULL = {
    "name": "a",
    "inner": {"learning_rate": 0.5, "kind": "cosine", "steps": 3},
    "maybe": None,
    "several": [{"learning_rate": 1.0, "kind": "linear", "steps": None}],
    "by_name": {"Upper-Case": {"learning_rate": 1.0, "kind": "linear", "steps": None}},
}


def test_mapping_round_trip():
    config = from_mapping(Outer, FULL)
    assert config.inner == Inner(learning_rate=0.5, kind="cosine", steps=3)
    assert to_mapping(config) == FULL
    assert from_mapping(Outer, to_mapping(config)) == config


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"inner": {"learning_rat": 1}}, ["'inner.learning_rat'", "did you mean 'learning_rate'?"]),
        ({"maybe": {"kid": "linear"}}, ["'maybe.kid'", "'kind'"]),
        ({"several": [{}, {"step": 1}]}, ["'several.1.step'", "'steps'"]),
        ({"Naem": "b"}, ["unknown key 'Naem'"]),
        ({"in-ner": {}}, ["unknown key 'in-ner'", "'inner'"]),
        ({"inner": {"steps": "many"}}, ["inner.steps: got 'many', expected a valid integer"]),
        ({"inner": {"kind": "cubic"}}, ["inner.kind: got 'cubic', expected 'linear' or 'cosine'"]),
        ({"inner": 3}, ["inner: got 3, expected"]),
        ({"inner": {"steps": 7}}, ["seven steps are not allowed"]),
        ({True: 1}, ["unknown key"]),
    ],
)
def test_problem_is_named(changes, expected):
    with pytest.raises(ConfigError) as caught:
        from_mapping(Outer, {**FULL, **changes}, "file.yaml")
    assert str(caught.value).startswith("file.yaml: ")
    assert len(str(caught.value).splitlines()) == 1
    for part in expected:
        assert part in str(caught.value)


def test_all_problems_in_one_error():
    with pytest.raises(ConfigError) as caught:
        from_mapping(Outer, {"inner": {"kind": "cubic", "stepps": 1}, "nam": "x"})
    lines = str(caught.value).splitlines()
    assert lines[0] == "recipe: 4 problems"
    assert "'name' is required and missing" in str(caught.value)
    assert len(lines) == 5


@pytest.mark.parametrize("value", [None, 3, ["name"], "name"])
def test_no_mapping(value):
    with pytest.raises(ConfigError, match="expected a mapping"):
        from_mapping(Outer, value)


def test_constructor_raises_the_same_error():
    with pytest.raises(ConfigError, match="got 'cubic'"):
        Inner(kind="cubic")


def test_nearest_lists_what_is_known_when_nothing_is_near():
    assert nearest("zzz", ["b", "a"]) == "known: a, b."
