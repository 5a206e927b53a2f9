"""Opens a bundle as the pipeline of its task: `serve.load`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from serve.bundle.integrity import Check
from serve.bundle.manifest import Manifest
from serve.pipelines.classification import TextClassifier
from serve.pipelines.embedding import FeatureExtractor, SentenceEmbedder
from serve.pipelines.encoder import EncoderPipeline
from serve.pipelines.fill_mask import MaskFiller
from serve.pipelines.question_answering import QuestionAnswerer
from serve.pipelines.text_generation import Text2TextGenerator, TextGenerator
from serve.pipelines.token_classification import TokenClassifier
from serve.runtime.session import Provider, SessionOptions

Pipeline = EncoderPipeline | TextGenerator

PIPELINES: dict[str, Callable[[Manifest, SessionOptions], Any]] = {
    "feature-extraction": FeatureExtractor,
    "fill-mask": MaskFiller,
    "question-answering": QuestionAnswerer,
    "sentence-similarity": SentenceEmbedder,
    "text-classification": TextClassifier,
    "text-generation": TextGenerator,
    "text2text-generation": Text2TextGenerator,
    "token-classification": TokenClassifier,
}


def load(
    bundle: str | Path,
    providers: Sequence[Provider] | None = None,
    threads: int | None = None,
    check: Check = True,
    options: SessionOptions | None = None,
) -> Any:
    """Open a bundle.

    Args:
        bundle: The bundle's folder.
        providers: Execution providers in order of preference, such as `["cuda", "cpu"]`.
        threads: Threads inside an operator; all CPUs by default.
        check: How closely to look at the files, see `Manifest.load`.
        options: All settings of the session, instead of `providers` and `threads`.

    Returns:
        The pipeline of the bundle's task: call it with one text (pair, dict) for one result, or
        with a list for a list of results in the same order.

    Raises:
        BundleError: The bundle is incomplete, changed or of an unknown schema.
        ProviderError: A provider asked for is not installed.
    """
    manifest = Manifest.load(bundle, check)
    if options is None:
        chosen = (providers,) if isinstance(providers, str) else providers
        options = SessionOptions(tuple(chosen) if chosen is not None else None, threads)
    return PIPELINES[manifest.task](manifest, options)
