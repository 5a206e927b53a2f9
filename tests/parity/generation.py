"""What generation is compared on: kinds of models, and random settings. Data alone, read by both
environments.

    .venv-parity/bin/python -m tests.parity.generation_reference --out build/parity
    .venv/bin/python -m tests.parity.generation_compare --out build/parity

The first writes `<out>/generation/<kind>/` (config.json, model.safetensors) with what `generate` of
Hugging Face answers (answers.json), and what its rules and warpers make of random scores
(rules.json, warpers.npz); the second exports each model and compares.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from .cases import Case, all_cases

KINDS = {
    "llama": "grouped",
    "gpt2": "plain",
    "t5": "plain",
    "bart": "plain",
    "marian": "plain",
    "m2m_100": "plain",
}
"""Families, each with one of its cases."""
COUNT = 64
"""Settings for each kind."""
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"repetition_penalty": 1.3, "max_new_tokens": 9, "eos_token_id": [2, 17, 33, 60, 71]},
    "bart": {
        "num_beams": 4, "length_penalty": 2.0, "early_stopping": True, "max_length": 14,
        "min_length": 4, "no_repeat_ngram_size": 3, "forced_eos_token_id": 2,
        "forced_bos_token_id": 7, "eos_token_id": [2, 17, 33, 60],
    },
    "marian": {
        "num_beams": 6, "max_length": 12, "bad_words_ids": [[98]], "renormalize_logits": True,
        "forced_eos_token_id": 0, "eos_token_id": [0, 17, 33, 60, 71],
    },
    "m2m_100": {
        "num_beams": 5, "max_length": 13, "early_stopping": True, "forced_bos_token_id": 9,
        "suppress_tokens": [1], "length_penalty": 0.5, "eos_token_id": [2, 17, 33, 60],
    },
}  # fmt: skip
"""What a checkpoint's generation_config.json says of a few kinds, as those on hubs do."""
DEFAULT_COUNT = 12
"""Requests of a kind that ask for nothing else."""
FIRST = 5
"""Ids below are the special tokens'."""
FOLDER = "generation"
ANSWERS, RULES, WARPERS = "answers.json", "rules.json", "warpers.npz"


def case_of(kind: str) -> Case:
    """A family's case, with matrices so wide that choices are seldom close."""
    [case] = all_cases((f"{kind}/{KINDS[kind]}",))
    return dataclasses.replace(case, spread=2.0)


def folder_of(out: Path, kind: str) -> Path:
    """Where a kind's model and answers lie."""
    return out / FOLDER / kind


class Draw:
    """Random settings, each with some chance."""

    def __init__(self, *seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def chance(self, share: float) -> bool:
        """Whether something of that probability happens."""
        return bool(self.random.random() < share)

    def whole(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        return int(self.random.integers(low, high + 1))

    def real(self, low: float, high: float) -> float:
        """A number of two decimals."""
        return round(float(self.random.uniform(low, high)), 2)

    def ids(self, low: int, high: int, vocabulary: int) -> list[int]:
        """From `low` to `high` ordinary tokens."""
        return [int(i) for i in self.random.integers(FIRST, vocabulary, self.whole(low, high))]


def request_of(kind: str, at: int, case: Case) -> dict[str, Any]:
    """Request number `at` of a kind that leaves all to the checkpoint."""
    draw = Draw(50 + list(KINDS).index(kind), at)
    ids = draw.ids(2, 9, case.config["vocab_size"])
    return {"input_ids": ids, "prefix": None, "settings": None}


def settings_of(kind: str, at: int, case: Case) -> dict[str, Any]:
    """Request number `at` of a kind: `input_ids`, `prefix` (None, or an encoder-decoder's forced
    beginning behind its start token), and `settings` in the words of `generate`.
    """
    draw = Draw(list(KINDS).index(kind), at)
    vocabulary = case.config["vocab_size"]
    crosses = case.kind == "encoder-decoder"
    longest = 12 if crosses else 9
    most = draw.whole(3, 20)
    given: dict[str, Any] = {"max_new_tokens": most}
    forced = {"m2m_100": 1.0, "marian": 0.3, "bart": 0.3, "t5": 0.1}.get(kind, 0.1)
    ends = [int(case.config.get("eos_token_id", 2))]
    if draw.chance(0.7):
        ends += draw.ids(1, 12, vocabulary)
    given["eos_token_id"] = ends
    prefix = draw.ids(1, 2, vocabulary) if crosses and draw.chance(0.2) else None
    if draw.chance(0.65):
        beams = draw.whole(2, 5)
        given |= {
            "num_beams": beams,
            "num_return_sequences": draw.whole(1, beams),
            "length_penalty": draw.real(-1.5, 2.5),
            "early_stopping": [True, False, "never"][draw.whole(0, 2)],
        }
        if draw.chance(0.3):
            given["renormalize_logits"] = True
    for name, share, value in (
        ("repetition_penalty", 0.4, lambda: draw.real(0.7, 2.0)),
        ("no_repeat_ngram_size", 0.35, lambda: draw.whole(1, 4)),
        ("encoder_no_repeat_ngram_size", 0.2, lambda: draw.whole(1, 3)),
        ("bad_words_ids", 0.3, lambda: [draw.ids(1, 2, vocabulary) for _ in range(20)]),
        ("min_new_tokens", 0.25, lambda: draw.whole(1, most)),
        ("min_length", 0.2, lambda: draw.whole(1, 12)),
        ("suppress_tokens", 0.25, lambda: draw.ids(1, 30, vocabulary)),
        ("begin_suppress_tokens", 0.2, lambda: draw.ids(1, 30, vocabulary)),
        ("forced_eos_token_id", 0.25, lambda: ends[0]),
        ("forced_bos_token_id", forced, lambda: draw.ids(1, 1, vocabulary)[0]),
    ):
        if draw.chance(share):
            given[name] = value()
    if given.get("forced_bos_token_id") in ends:  # an answer of nothing
        del given["forced_bos_token_id"]
    if kind == "m2m_100":  # where the reference counts no position for padding that it writes
        given.setdefault("suppress_tokens", []).append(int(case.config["pad_token_id"]))
    for name in ("suppress_tokens", "begin_suppress_tokens"):  # the reference refuses what is both
        wanted = (given.get("forced_bos_token_id"), given.get("forced_eos_token_id"))
        kept = [token for token in given.pop(name, []) if token not in wanted]
        given |= {name: kept} if kept else {}
    if draw.chance(0.3):
        given["logit_bias"] = {str(token): draw.real(-4, 4) for token in draw.ids(1, 9, vocabulary)}
    if draw.chance(0.2):  # a length in all, instead of new tokens
        begun = (1 + len(prefix or [])) if crosses else 0
        length = draw.whole(1, longest)
        given["max_length"] = given.pop("max_new_tokens") + (begun or length)
    else:
        length = draw.whole(1, longest)
    ids = draw.random.integers(FIRST, vocabulary, length)
    # Tokens that come again, so that n-grams and penalties have something to do.
    ids[length // 2 :] = ids[: length - length // 2]
    return {"input_ids": [int(i) for i in ids], "prefix": prefix, "settings": given}
