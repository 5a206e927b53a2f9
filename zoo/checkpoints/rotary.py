"""Rotary positions in `config.json`: `rope_theta` and `rope_scaling`, or `rope_parameters`."""

from collections.abc import Mapping
from typing import Any

from zoo.backbones.config import RotaryScaling
from zoo.checkpoints.facts import Reader, Rule
from zoo.errors import ConfigError

_KEYS = {
    "factor": "factor",
    "original_max_position_embeddings": "original_length",
    "low_freq_factor": "low_frequency_factor",
    "high_freq_factor": "high_frequency_factor",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "attention_factor": "attention_factor",
    "truncate": "round_bounds",
    "short_factor": "short_factors",
    "long_factor": "long_factors",
}
_OF_KIND = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor", "beta_fast", "beta_slow", "attention_factor", "truncate"),
    "longrope": ("factor", "attention_factor", "short_factor", "long_factor"),
}
_OTHER = {"rope_theta", "rope_type", "type", "partial_rotary_factor", "mscale", "mscale_all_dim"}


def rotary(
    theta: float = 10000.0, fraction: float | None = None, theta_key: str = "rope_theta"
) -> Rule:
    """Base, scaling and, where `fraction` is its default, the turned part of each head."""

    def decode(reader: Reader) -> dict[str, Any]:
        given = _parameters(reader)
        base = given.get("rope_theta", reader.get(theta_key, theta))
        facts: dict[str, Any] = {
            "rotary_base": float(base),
            "rotary_scaling": scaling_of(reader, given),
        }
        scaling = facts["rotary_scaling"]
        if scaling is not None and scaling.kind == "dynamic":  # made to go beyond
            facts["max_length"] = int(scaling.original_length * scaling.factor)
        if fraction is not None:
            part = reader.get("partial_rotary_factor", fraction)
            facts["rotary_fraction"] = given.get("partial_rotary_factor", part)
        return facts

    def encode(config: Any) -> dict[str, Any]:
        written = {theta_key: config.rotary_base, "rope_scaling": written_scaling(config)}
        if config.rotary_scaling is not None and config.rotary_scaling.kind == "dynamic":
            written["max_position_embeddings"] = config.rotary_scaling.original_length
        if fraction is not None:
            written["partial_rotary_factor"] = config.rotary_fraction
        return written

    return Rule(decode, encode)


def _parameters(reader: Reader) -> dict[str, Any]:
    """The scaling's keys, from either form."""
    return dict(reader.get("rope_parameters", None) or reader.get("rope_scaling", None) or {})


def scaling_of(
    reader: Reader, given: Mapping[str, Any], name: str = "rope_scaling"
) -> RotaryScaling | None:
    """What a mapping such as {"rope_type": "yarn", "factor": 4.0} means."""
    reader.seen.update(("rope_scaling", "rope_parameters", "original_max_position_embeddings"))
    kind = given.get("rope_type", given.get("type", "default"))
    if kind in ("default", None):
        return None
    kind = {"su": "longrope"}.get(kind, kind)
    if kind not in _OF_KIND:
        raise ConfigError(
            f"{reader.where}: {name} of type {kind!r} is not supported, "
            f"expected one of default, {', '.join(_OF_KIND)}"
        )
    known = {*_KEYS, *_OTHER}
    unknown = sorted(set(given) - known)
    if unknown:
        raise ConfigError(f"{reader.where}: {name} has keys that are not understood: {unknown}")
    facts = {_KEYS[key]: given[key] for key in _OF_KIND[kind] if given.get(key) is not None}
    most = reader.values.get("max_position_embeddings")
    original = given.get("original_max_position_embeddings")
    if original is None:
        original = reader.values.get("original_max_position_embeddings")
    if kind != "linear":
        facts["original_length"] = most if original is None or kind == "dynamic" else original
    if kind == "longrope" and "factor" not in facts:
        facts["factor"] = most / facts["original_length"]
    if kind == "yarn" and facts.get("attention_factor") is None and given.get("mscale"):
        facts["attention_factor"] = _sharpness(given)
    for key in ("short_factors", "long_factors"):
        if key in facts:
            facts[key] = tuple(facts[key])
    return RotaryScaling(kind=kind, **facts)


def _sharpness(given: Mapping[str, Any]) -> float:
    """DeepSeek's form of yarn's attention factor."""
    import math

    def of(scale: float) -> float:
        return 0.1 * scale * math.log(given["factor"]) + 1.0 if given["factor"] > 1 else 1.0

    return of(given["mscale"]) / of(given.get("mscale_all_dim") or 0.0)


def written_scaling(config: Any) -> dict[str, Any] | None:
    """`rope_scaling` of a config."""
    scaling = config.rotary_scaling
    if scaling is None:
        return None
    values = {key: getattr(scaling, _KEYS[key]) for key in _OF_KIND[scaling.kind]}
    if scaling.kind not in ("linear", "dynamic"):
        values["original_max_position_embeddings"] = scaling.original_length
    values = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in values.items()
        if value is not None
    }
    return {"rope_type": scaling.kind, **values}
