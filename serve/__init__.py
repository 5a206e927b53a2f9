"""Answers requests from an exported bundle, with numpy, onnxruntime and tokenizers alone.

>>> import serve
>>> pipeline = serve.load("bundles/dates")
>>> pipeline("the 3rd of March 2024").text
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from serve.errors import BundleError, IndexFileError, InputError, ProviderError, ServeError

if TYPE_CHECKING:
    from serve.bundle.manifest import Manifest
    from serve.bundle.selfcheck import replay
    from serve.decoding.background import BackgroundEngine
    from serve.decoding.engine import Engine
    from serve.decoding.generator import Generator
    from serve.decoding.request import Completion, Request
    from serve.decoding.settings import GenerationSettings
    from serve.pipelines import Pipeline, load
    from serve.runtime.session import Session, SessionOptions
    from serve.search.index import Index

__all__ = [
    "BackgroundEngine",
    "BundleError",
    "Completion",
    "Engine",
    "GenerationSettings",
    "Generator",
    "Index",
    "IndexFileError",
    "InputError",
    "Manifest",
    "Pipeline",
    "ProviderError",
    "Request",
    "ServeError",
    "Session",
    "SessionOptions",
    "load",
    "replay",
]

_HOMES = {
    "BackgroundEngine": "serve.decoding.background",
    "Completion": "serve.decoding.request",
    "Engine": "serve.decoding.engine",
    "GenerationSettings": "serve.decoding.settings",
    "Generator": "serve.decoding.generator",
    "Index": "serve.search.index",
    "Manifest": "serve.bundle.manifest",
    "Pipeline": "serve.pipelines",
    "Request": "serve.decoding.request",
    "Session": "serve.runtime.session",
    "SessionOptions": "serve.runtime.session",
    "load": "serve.pipelines",
    "replay": "serve.bundle.selfcheck",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import serve` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'serve' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
