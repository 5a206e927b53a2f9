"""What a parity case is, and the table of all cases: data alone, read by both environments.

A case is a class of the reference library, its config, and what is fed. The tables stand in
`encoders.py`, `decoders.py`, `gated_decoders.py` and `encoder_decoders.py`.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

POOLER = r"(^|\.)pooler\."
TWIN_BIAS = r"(predictions|lm_head)\.bias$"
"""Beside an untied head's own bias the reference stores that of the tied one, which it ignores."""
LABELS = {0: "negative", 1: "neutral", 2: "positive"}
NEW_TOKENS = 12


@dataclass(frozen=True)
class Case:
    """One folder to be read, computed, saved and read back.

    Attributes:
        architecture: Class of the reference library that makes the folder.
        config: Its config's arguments.
        name: Short name within the family.
        model_type: The family.
        kind: encoder, decoder or encoder-decoder.
        layers: Path of the (encoder's) layers in the reference's base model.
        decoder_layers: The same of an encoder-decoder's decoder.
        lengths: Tokens of each row; rows are right padded.
        target_lengths: Tokens of each row of an encoder-decoder's decoder.
        task: The task to ask for; None: what the folder's architecture says.
        token_types: Feed segments.
        ends: Each row ends with the end token.
        cached: Cached steps are compared with the full pass.
        greedy: Greedy tokens are compared.
        dtype: The stored tensors' type.
        shard_bytes: Largest file; None: one file.
        raw_config: config.json holds the arguments as they stand, as older folders on hubs do,
            instead of what the reference writes today.
        stored_as: (pattern, replacement) pairs that give the file's tensors other names: those of
            older folders.
        prefixed: The file keeps the base model's prefix; False: names as the bare model has them.
        extra: Further tensors of the file: name -> shape. Position ids and causal masks, as older
            files hold them, get their own values.
        copies: Further tensors of the file that repeat others: name -> name.
        unused: Tensors of the file that the task's outputs do not depend on, and that need not come
            back: a pattern.
        spread: Widens the matrices.
        golden: Stored for the tests that run without the reference.
        attention: The reference's attention; what is compared is its plain one unless that differs
            from what it runs.
        required: False: beyond what the zoo promises; a refusal is reported, not a failure.
    """

    architecture: str
    config: Mapping[str, Any]
    name: str = ""
    model_type: str = ""
    kind: str = ""
    layers: str = ""
    decoder_layers: str | None = None
    lengths: tuple[int, ...] = (1, 5, 11)
    target_lengths: tuple[int, ...] = (4, 7, 1)
    task: str | None = None
    token_types: bool = False
    ends: bool = False
    cached: bool = True
    greedy: bool = True
    dtype: str = "float32"
    shard_bytes: int | None = None
    raw_config: bool = False
    stored_as: tuple[tuple[str, str], ...] = ()
    prefixed: bool = True
    extra: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    copies: Mapping[str, str] = field(default_factory=dict)
    unused: str = ""
    spread: float = 1.0
    golden: bool = False
    attention: str = "eager"
    required: bool = True

    @property
    def folder(self) -> str:
        """Where it lies below the output folder."""
        return f"{self.model_type}/{self.name}"


@dataclass(frozen=True)
class Family:
    """The cases of a model_type, and what they share."""

    layers: str
    config: Mapping[str, Any]
    cases: Mapping[str, Case]
    decoder_layers: str | None = None

    def named(self, model_type: str, kind: str) -> Iterator[Case]:
        """Its cases, each with the shared config below its own."""
        for name, case in self.cases.items():
            bare = kind == "encoder" and case.architecture.endswith("Model")
            yield dataclasses.replace(
                case,
                name=name,
                model_type=model_type,
                kind=kind,
                layers=self.layers,
                decoder_layers=self.decoder_layers,
                config={**self.config, **case.config},
                unused=case.unused or (POOLER if bare else ""),
            )


def all_cases(only: tuple[str, ...] = ()) -> list[Case]:
    """Every case, or those of the families or `family/case` names in `only`."""
    from .decoders import DECODERS
    from .encoder_decoders import ENCODER_DECODERS
    from .encoders import ENCODERS
    from .gated_decoders import GATED_DECODERS

    tables = {
        "encoder": ENCODERS,
        "decoder": {**DECODERS, **GATED_DECODERS},
        "encoder-decoder": ENCODER_DECODERS,
    }
    cases = [
        case
        for kind, families in tables.items()
        for model_type, family in families.items()
        for case in family.named(model_type, kind)
    ]
    known = {case.folder for case in cases} | {case.model_type for case in cases}
    unknown = sorted(set(only) - known)
    if unknown:
        raise SystemExit(f"no case or family is named {unknown}; families: {sorted(known)}")
    return [c for c in cases if not only or c.folder in only or c.model_type in only]
