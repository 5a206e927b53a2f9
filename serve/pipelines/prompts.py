"""Prompts that stand before texts, as sentence-transformers keeps them.

https://sbert.net/examples/sentence_transformer/applications/computing-embeddings/README.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from serve.bundle.manifest import Manifest
from serve.errors import BundleError, InputError

PROMPTS_FILE = "config_sentence_transformers.json"


def read_prompts(manifest: Manifest) -> tuple[dict[str, str], str | None]:
    """A bundle's named prompts, and the name of the one that is used unless another is chosen.

    Raises:
        BundleError: The file that holds them is broken.
    """
    path = manifest.path(PROMPTS_FILE)
    if not path.is_file():
        return {}, None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    prompts = facts.get("prompts") or {} if isinstance(facts, dict) else None
    if not isinstance(prompts, dict) or not all(isinstance(x, str) for x in prompts.values()):
        raise BundleError(f"{path}: expected an object with a text for each name under 'prompts'")
    default = facts.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise BundleError(f"{path}: default_prompt_name {default!r} is none of {sorted(prompts)}")
    return prompts, default


def check_prompts(prompts: Any) -> None:
    """Refuse what does not give a text for each name; None is none."""
    if prompts is None:
        return
    if not isinstance(prompts, Mapping) or not all(
        isinstance(part, str) for pair in prompts.items() for part in pair
    ):
        raise InputError(f"prompts={prompts!r:.60}: expected a text for each name, as a dict")


def add_prompt(prompt: str | None, name: str | None, prompts: Mapping[str, str]) -> str:
    """The text to put before each text.

    Raises:
        InputError: Prompt and name are both given, or there is no prompt of this name.
    """
    if prompt is not None and name is not None:
        raise InputError(f"prompt={prompt!r} and prompt_name={name!r}: give one of them")
    if name is None:
        if prompt is not None and not isinstance(prompt, str):
            raise InputError(f"prompt={prompt!r}: expected a text")
        return prompt or ""
    if not isinstance(name, str) or name not in prompts:
        known = ", ".join(map(repr, sorted(prompts))) or "none"
        raise InputError(f"prompt_name={name!r}: the model's prompts are {known}")
    return prompts[name]
