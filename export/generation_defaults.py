"""How a model's bundle writes when nothing else is asked: what the checkpoint said of it.

A checkpoint says it in generation_config.json, an older one in config.json; `from_pretrained` keeps
both.
"""

import logging
import re
from typing import Any

from serve.bundle.manifest import GenerationSpec
from serve.decoding.settings import GenerationSettings
from serve.errors import InputError
from zoo.checkpoints.facts import GENERATION
from zoo.tasks import TaskModel

NEW_TOKENS = 64
"""Most tokens of an answer where neither the caller nor the checkpoint says it."""

log = logging.getLogger(__name__)

_IDS = {"bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"}
_OWN = {*_IDS, "max_new_tokens", "language_tokens", "tasks"}
_DEFAULTS = sorted(set(GenerationSpec.model_fields) - _OWN)
_OFF: dict[str, tuple[Any, ...]] = {
    "top_k": (0,),
    "bad_words_ids": ([],),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "num_beam_groups": (None, 0),
}
"""Values by which a checkpoint says that it wants none of it."""
_UNKNOWN = {
    "encoder_repetition_penalty": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "exponential_decay_length_penalty": None,
    "guidance_scale": 1.0,
    "sequence_bias": None,
    "top_h": None,
    "watermarking_config": None,
}
"""What `serve` has no setting for, with the value that changes nothing."""
_LANGUAGE = re.compile(
    r"__(?!pad|unk|bos|eos|sep|cls)([a-z]{2,3})__|([a-z]{2}_[A-Z]{2}|[a-z]{3}_[A-Z][a-z]{3})"
)


def generation_spec(
    model: TaskModel, max_new_tokens: int | None = None, tokenizer: Any = None
) -> GenerationSpec | None:
    """Tokens that begin and end a text, and the defaults of generation; None for other tasks.

    Args:
        model: The model; its `pretrained` holds what its checkpoint said.
        max_new_tokens: Most tokens of an answer. None: what the checkpoint says, else 64.
        tokenizer: Whose special tokens are looked through for those of languages.
    """
    if not model.generates:
        return None
    config: Any = model.config
    decoder: Any = model.decoder
    said = _said(model)
    found = _defaults(said)
    longest = found.pop("max_length", None)
    if longest is not None and not (max_new_tokens or said.get("max_new_tokens")):
        found["max_length"] = min(longest, decoder.length)
    return GenerationSpec(
        bos_token_id=config.bos_token_id,
        eos_token_id=_ends(said.get("eos_token_id"))
        or _ends([config.eos_token_id, *config.stop_token_ids]),
        pad_token_id=config.pad_token_id,
        decoder_start_token_id=getattr(config, "decoder_start_token_id", None),
        max_new_tokens=_most(model, max_new_tokens, said, longest),
        language_tokens={} if tokenizer is None else language_tokens(tokenizer),
        tasks=_tasks(model),
        **found,
    )


def generation_config(spec: GenerationSpec) -> dict[str, Any]:
    """`generation_config.json` of a bundle, in the words of Hugging Face."""
    facts = spec.model_dump(exclude_none=True, exclude={"language_tokens", "tasks"})
    if "stop" in facts:
        facts["stop_strings"] = facts.pop("stop")
    return facts


def language_tokens(tokenizer: Any) -> dict[str, int]:
    """The special tokens that stand for languages, as M2M-100 (`__fr__`, by the name `fr`),
    mBART (`fr_XX`) and NLLB (`fra_Latn`) write them.
    """
    added = tokenizer.backend.get_added_tokens_decoder()
    found = {}
    for number, token in sorted(added.items()):
        match = _LANGUAGE.fullmatch(token.content)
        if token.special and match:
            found[match[1] or match[2]] = number
    return found


def _said(model: TaskModel) -> dict[str, Any]:
    """generation_config.json; where there is none, what config.json says of generation."""
    pretrained = model.pretrained or {}
    own: dict[str, Any] = pretrained.get("generation") or {}
    if own:
        return own
    config = pretrained.get("config") or {}
    return {name: config[name] for name in GENERATION if config.get(name) is not None}


def _tasks(model: TaskModel) -> dict[str, dict[str, Any]]:
    """What the checkpoint says of tasks, as T5's do: the prefix of the input, lengths, beams."""
    config = (model.pretrained or {}).get("config") or {}
    said = config.get("task_specific_params") or {}
    return {name: facts for name, facts in said.items() if isinstance(facts, dict)}


def _defaults(said: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in _DEFAULTS:
        value = said.get("stop_strings" if name == "stop" else name)
        if value is None or value in _OFF.get(name, ()):
            continue
        if name in ("forced_bos_token_id", "forced_eos_token_id") and isinstance(value, list):
            value = value[0]
        try:
            settings = GenerationSettings(**_with_company(name, value, said))
        except InputError as error:
            log.warning("a default of generation is left out: %s", error)
            continue
        value = getattr(settings, name)
        found[name] = list(value) if isinstance(value, tuple) else value
    for name, neutral in _UNKNOWN.items():
        if said.get(name) not in (None, neutral):
            log.warning("%s = %r is left out: a bundle has no such setting", name, said[name])
    return found


def _with_company(name: str, value: Any, said: dict[str, Any]) -> dict[str, Any]:
    """A value, with the one that it only means something beside."""
    if name == "num_beam_groups":
        return {name: value, "num_beams": said.get("num_beams") or 1}
    return {name: value}


def _most(model: TaskModel, asked: int | None, said: dict[str, Any], longest: int | None) -> int:
    """Most new tokens; an encoder-decoder's length counts its start token, and no prompt."""
    decoder: Any = model.decoder
    most = asked or said.get("max_new_tokens")
    if most is None and longest is not None and model.architecture == "encoder-decoder":
        most = max(1, longest - 1)
    return int(min(most or NEW_TOKENS, decoder.length))


def _ends(ids: Any) -> list[int]:
    given = ids if isinstance(ids, list) else [ids]
    return [int(token) for token in given if token is not None]
