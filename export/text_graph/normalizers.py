"""What a tokenizer changes in a text first, as tables by character."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, normalizers

from export.errors import ExportError
from export.text_graph.characters import Elements
from export.text_graph.composition import compose, reorder
from export.text_graph.tables import CHARACTERS, TOKEN, codes, look_up
from export.text_graph.wires import Wires

Facts = Mapping[str, Any]
Stage = Callable[[Wires, Elements], Elements]

DECOMPOSED = {"NFD", "NFC", "NFKD", "NFKC"}
BY_CHARACTER = {"Lowercase", "StripAccents", "Nmt", "BertNormalizer", "Replace"}


def stages(facts: Facts | None) -> list[Stage]:
    """The steps of a normaliser in tokenizer.json.

    Raises:
        ExportError: A step has no exact twin.
    """
    found: list[Stage] = []
    table: list[Facts] = []

    def close() -> None:
        if table:
            found.append(_mapping(json.dumps(table)))
            table.clear()

    for step in _flat(facts):
        kind = step["type"]
        if kind in DECOMPOSED:
            table.append({"type": "NFKD" if "K" in kind else "NFD"})
            close()
            found.append(reorder)
            if kind.endswith("C"):
                found.append(compose)
        elif kind in BY_CHARACTER:
            table.append(step)
        elif kind == "Prepend":
            close()
            found.append(_prefix(step["prepend"]))
        else:
            raise ExportError(
                f"the tokenizer's normaliser {kind} has no exact twin in the graph; "
                f"there are those of {sorted(BY_CHARACTER | DECOMPOSED)}. {ADVICE}"
            )
    close()
    return found


ADVICE = "Export with to_onnx, whose bundle brings tokenizer.json"


def _flat(facts: Facts | None) -> Iterator[Facts]:
    """The steps, one by one; a BERT normaliser that strips accents decomposes first."""
    if facts is None:
        return
    kind = facts["type"]
    if kind == "Sequence":
        for step in facts["normalizers"]:
            yield from _flat(step)
        return
    if kind == "BertNormalizer":
        accents = facts["strip_accents"]
        accents = facts["lowercase"] if accents is None else accents
        plain = {**facts, "strip_accents": False, "lowercase": False}
        yield plain
        if accents:
            yield {"type": "NFD"}
        rest = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": accents}
        yield {**facts, **rest}
        return
    if kind == "Replace":
        pattern = facts["pattern"].get("String")
        if pattern is None or len(pattern) != 1:
            raise ExportError(
                f"the tokenizer's normaliser replaces {facts['pattern']}, which has no exact twin "
                f"in the graph: only single characters do. {ADVICE}"
            )
    yield facts


def _prefix(text: str) -> Stage:
    """A text before each piece that is not empty."""

    def stage(graph: Wires, elements: Elements) -> Elements:
        first = ~graph.before(elements.pieces, -1).equals(elements.pieces)
        return elements.prefixed(graph, text, first & (elements.codes < TOKEN))

    return stage


def backend_of(steps: list[Facts]) -> normalizers.Normalizer:
    """The library's own normaliser."""
    tokenizer = Tokenizer(models.WordLevel({"": 0}, ""))
    described = json.loads(tokenizer.to_str())
    described["normalizer"] = {"type": "Sequence", "normalizers": steps}
    return Tokenizer.from_str(json.dumps(described)).normalizer


@cache
def replacements(steps: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What these steps (JSON) make of each character.

    Returns:
        [CHARACTERS] where its replacement begins in the pool, -1 for a character that stays;
        [CHARACTERS] how long the replacement is; the pool of code points.
    """
    change = backend_of(json.loads(steps)).normalize_str
    pool: list[int] = []
    places = np.full(CHARACTERS, -1, np.int64)
    counts = np.ones(CHARACTERS, np.int64)
    known: dict[str, int] = {}
    for code, count in codes():
        character = chr(code)
        result = change(character)
        if result == character:
            continue
        if count > 1 and result:
            raise ExportError(f"U+{code:X} is normalised to {result!r}: a table of its page is due")
        if result not in known:
            known[result] = len(pool)
            pool.extend(map(ord, result))
        places[code : code + count] = known[result]
        counts[code : code + count] = len(result)
    return places, counts, np.array([*pool, 0], np.int64)


def _mapping(steps: str) -> Stage:
    """Characters replaced one by one."""

    def stage(graph: Wires, elements: Elements) -> Elements:
        places, counts, pool = replacements(steps)
        if (places < 0).all():
            return elements
        place = look_up(graph, places, elements.codes, -1)
        if counts.max() == 1 and counts.min() == 1:
            new = graph.take(pool.astype(np.int32), graph.op("Max", place, 0))
            changed = graph.where(place < 0, elements.codes, graph.cast(new))
            return Elements(changed, elements.rows, elements.pieces)
        count = look_up(graph, counts, elements.codes, 1)
        source, nth = graph.repeats(count)
        start = graph.take(place, source)
        new = graph.cast(graph.take(pool.astype(np.int32), graph.op("Max", start + nth, 0)))
        changed = graph.where(start < 0, graph.take(elements.codes, source), new)
        return Elements(
            changed, graph.take(elements.rows, source), graph.take(elements.pieces, source)
        )

    return stage
