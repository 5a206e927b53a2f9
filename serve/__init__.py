"""Answers requests from an exported bundle, with numpy, onnxruntime and tokenizers alone.

>>> import serve
>>> pipeline = serve.load("bundles/dates")
>>> pipeline("the 3rd of March 2024").text
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from serve.errors import BundleError, InputError, ProviderError, ServeError

if TYPE_CHECKING:
    from serve.generate import Generator
    from serve.manifest import Manifest
    from serve.pipelines import Pipeline, load
    from serve.sampling import GenerationSettings
    from serve.selfcheck import replay
    from serve.session import Session, SessionOptions

__all__ = [
    "BundleError",
    "GenerationSettings",
    "Generator",
    "InputError",
    "Manifest",
    "Pipeline",
    "ProviderError",
    "ServeError",
    "Session",
    "SessionOptions",
    "load",
    "replay",
]

_HOMES = {
    "GenerationSettings": "serve.sampling",
    "Generator": "serve.generate",
    "Manifest": "serve.manifest",
    "Pipeline": "serve.pipelines",
    "Session": "serve.session",
    "SessionOptions": "serve.session",
    "load": "serve.pipelines",
    "replay": "serve.selfcheck",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import serve` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'serve' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
