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
    theta: float = 10000.0,
    fraction: float | None = None,
    theta_key: str = "rope_theta",
    scaling: Mapping[str, Any] | None = None,
    fraction_key: str = "partial_rotary_factor",
) -> Rule:
    """Base, scaling and, where `fraction` is its default, the turned part of each head.

    Args:
        theta: The base's default.
        fraction: Default of the turned part; None: the family has no such key.
        theta_key: The base's key.
        scaling: The scaling of a file that says nothing of it.
        fraction_key: The turned part's key.
    """

    def decode(reader: Reader) -> dict[str, Any]:
        given = _parameters(reader) or dict(scaling or {})
        base = given.get("rope_theta", reader.get(theta_key, theta))
        facts: dict[str, Any] = {
            "rotary_base": float(base),
            "rotary_scaling": scaling_of(reader, given),
        }
        found = facts["rotary_scaling"]
        if found is not None and found.kind == "dynamic":  # made to go beyond
            facts["max_length"] = int(found.original_length * found.factor)
        if fraction is not None:
            part = reader.get(fraction_key, fraction)
            facts["rotary_fraction"] = given.get("partial_rotary_factor", part)
        elif given.get("partial_rotary_factor", 1.0) != 1.0:
            raise ConfigError(f"{reader.where}: partial_rotary_factor is not a key of this family")
        return facts

    def encode(config: Any) -> dict[str, Any]:
        written = {theta_key: config.rotary_base, "rope_scaling": written_scaling(config)}
        if scaling is not None and config.rotary_scaling is None:  # nothing would mean the default
            written["rope_scaling"] = {"rope_type": "default"}
        if config.rotary_scaling is not None and config.rotary_scaling.kind == "dynamic":
            written["max_position_embeddings"] = config.rotary_scaling.original_length
        if fraction is not None:
            written[fraction_key] = config.rotary_fraction
        return written

    return Rule(decode, encode)


def rotary_by_window(theta: float, local_theta: float, theta_key: str, local_key: str) -> Rule:
    """Two bases: one of the layers that see everything, one of those with a window; in files of
    today `rope_parameters` of either kind of layer.

    Args:
        theta: Default of the base.
        local_theta: Default of that in layers with a window.
        theta_key: The base's key in older files.
        local_key: That of the layers with a window.
    """
    full, sliding = "full_attention", "sliding_attention"

    def decode(reader: Reader) -> dict[str, Any]:
        nested = reader.get("rope_parameters", None) or {}
        if not set(nested) <= {full, sliding}:
            raise reader.refuse("rope_parameters", f"is not supported, expected {full}, {sliding}")
        far = {**(nested.get(full) or {}), **(reader.get("rope_scaling", None) or {})}
        near = nested.get(sliding) or {}
        if near.get("rope_type", "default") != "default":
            raise reader.refuse("rope_parameters", f"is not supported: {sliding} is not stretched")
        bases = reader.get(theta_key, theta), reader.get(local_key, local_theta)
        return {
            "rotary_base": float(far.get("rope_theta", bases[0])),
            "rotary_scaling": scaling_of(reader, far),
            "local_rotary_base": near.get("rope_theta", bases[1]),
        }

    def encode(config: Any) -> dict[str, Any]:
        scaling = written_scaling(config) or {"rope_type": "default"}
        near = config.local_rotary_base or config.rotary_base
        return {
            "rope_parameters": {
                full: {"rope_theta": config.rotary_base, **scaling},
                sliding: {"rope_theta": near, "rope_type": "default"},
            }
        }

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
    original = reader.values.get("original_max_position_embeddings")  # it counts where both stand
    if original is None:
        original = given.get("original_max_position_embeddings")
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
    if scaling.kind == "longrope" and scaling.factor * scaling.original_length == config.max_length:
        del values["factor"]  # it follows from the lengths
    if scaling.kind not in ("linear", "dynamic"):
        values["original_max_position_embeddings"] = scaling.original_length
    values = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in values.items()
        if value is not None
    }
    return {"rope_type": scaling.kind, **values}
