"""Opens a bundle as the pipeline of a task: `serve.load`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from serve.bundle.integrity import Check
from serve.bundle.manifest import Manifest
from serve.errors import InputError
from serve.pipelines.base import Pipeline, check_size
from serve.runtime.session import Provider, SessionOptions


class Row(NamedTuple):
    """A task: the module and the class of its pipeline, and the tasks of the bundles it takes."""

    module: str
    pipeline: str
    bundles: tuple[str, ...]


PIPELINES: dict[str, Row] = {
    "chat": Row("chat", "ChatPipeline", ("text-generation",)),
    "feature-extraction": Row("embedding", "FeatureExtractor", ("feature-extraction",)),
    "fill-mask": Row("fill_mask", "MaskFiller", ("fill-mask",)),
    "question-answering": Row("question_answering", "QuestionAnswerer", ("question-answering",)),
    "reranking": Row("rerank", "Reranker", ("text-classification",)),
    "sentence-similarity": Row(
        "embedding", "SentenceEmbedder", ("sentence-similarity", "feature-extraction")
    ),
    "summarization": Row("text_to_text", "Summarizer", ("text2text-generation",)),
    "text-classification": Row("classification", "TextClassifier", ("text-classification",)),
    "text-generation": Row("text_generation", "TextGenerator", ("text-generation",)),
    "text2text-generation": Row("text_generation", "Text2TextGenerator", ("text2text-generation",)),
    "translation": Row("text_to_text", "Translator", ("text2text-generation",)),
    "zero-shot-classification": Row("zero_shot", "ZeroShotClassifier", ("text-classification",)),
    "token-classification": Row(
        "token_classification", "TokenClassifier", ("token-classification",)
    ),
}
"""Modules are imported when a task is asked for."""


def load(
    bundle: str | Path,
    task: str | None = None,
    providers: Sequence[Provider] | None = None,
    threads: int | None = None,
    check: Check = True,
    options: SessionOptions | None = None,
    **choices: Any,
) -> Any:
    """Open a bundle.

    Args:
        bundle: The bundle's folder.
        task: What to do with it; by default what the bundle was made for. Some bundles can do
            more, such as zero-shot-classification with a classifier of inference.
        providers: Execution providers in order of preference, such as `["cuda", "cpu"]`.
        threads: Threads inside an operator; all CPUs by default.
        check: How closely to look at the files, see `Manifest.load`.
        options: All settings of the session, instead of `providers` and `threads`.
        **choices: Of the task's pipeline, such as `batch_size`.

    Returns:
        The task's pipeline: call it with one text (pair, dict) for one result, with a list for a
        list of results, or with an iterator for an iterator.

    Raises:
        BundleError: The bundle is incomplete, changed or of an unknown schema.
        InputError: The bundle cannot do the task, or a choice is unknown or out of range.
        ProviderError: A provider asked for is not installed.
    """
    if not isinstance(bundle, str | Path):
        raise InputError(f"bundle={bundle!r:.60}: expected a folder, as a text or a Path")
    manifest = Manifest.load(bundle, check)
    if options is None:
        chosen = (providers,) if isinstance(providers, str) else providers
        options = SessionOptions(tuple(chosen) if chosen is not None else None, threads)
    make = pipeline_class(manifest, task)
    known = [name for name in inspect.signature(make).parameters if name not in _FIRST]
    for name in choices:
        if name not in known:
            raise InputError(
                f"the pipeline of {task or manifest.task} has no choice {name!r}: "
                f"it knows {', '.join(known)}"
            )
    if "batch_size" in choices:
        check_size("batch_size", choices["batch_size"])
    return make(manifest, options, **choices)


_FIRST = ("manifest", "options")


def pipeline_class(manifest: Manifest, task: str | None = None) -> type[Any]:
    """The class of a task's pipeline.

    Raises:
        InputError: There is no such task, or the bundle cannot do it.
    """
    task = manifest.task if task is None else task
    row = PIPELINES.get(task)
    if row is None or manifest.task not in row.bundles:
        able = [name for name, row in PIPELINES.items() if manifest.task in row.bundles]
        wrong = f"{task} needs a bundle of {' or '.join(row.bundles)}" if row else f"task={task!r}"
        raise InputError(
            f"{wrong}: the bundle {manifest.name!r} was made for {manifest.task} and "
            f"can do {', '.join(able)}"
        )
    return getattr(importlib.import_module(f"serve.pipelines.{row.module}"), row.pipeline)


__all__ = ["PIPELINES", "Pipeline", "Row", "load", "pipeline_class"]
