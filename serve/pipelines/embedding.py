"""Vectors of tokens and of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from serve.bundle.manifest import Manifest
from serve.errors import InputError
from serve.pipelines.base import check_choice, check_count, for_each, text_list
from serve.pipelines.encoder import EncoderPipeline, EncoderSettings, Outputs
from serve.pipelines.pooling import POOLINGS, PRECISIONS, join, quantize, shorten
from serve.pipelines.prompts import add_prompt, check_prompts, read_prompts
from serve.pipelines.results import Embedding, Features, Similarity
from serve.runtime.session import SessionOptions
from serve.text.windows import Piece, join_windows

VECTOR, STATES = "sentence_embedding", "last_hidden_state"


@dataclass(frozen=True)
class EmbeddingSettings(EncoderSettings):
    """Settings of feature-extraction and sentence-similarity.

    Attributes:
        pooling: How the states of a text's tokens become one vector: "mean", "cls" (the first),
            "last" (the last real one), "max", or "none" for the states themselves. Where the graph
            pools, it is the graph's.
        normalize: Vectors have length 1.
        prompt: Stands before each text.
        prompt_name: The same, by the name that the model knows it by, such as "query".
        dimensions: Keep this many numbers of a vector, and bring it back to its length: for models
            trained so that the first ones say most (Matryoshka representations,
            https://arxiv.org/abs/2205.13147).
        precision: "float32"; "int8" for vectors scaled so that their largest number is 127; or
            "binary" for signs, eight to a byte.
    """

    pooling: str | None = None
    normalize: bool | None = None
    prompt: str | None = None
    prompt_name: str | None = None
    dimensions: int | None = None
    precision: str = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("dimensions", self.dimensions)
        check_choice("precision", self.precision, PRECISIONS)
        if self.normalize not in (None, True, False):
            raise InputError(f"normalize={self.normalize!r}: expected True or False")


class Embedder(EncoderPipeline):
    """What the pipelines of vectors share.

    A text longer than the model reads is read in windows. Its vector is the mean of theirs, each
    weighted by the tokens that no window before it had; with pooling "max" the largest numbers,
    with "last" that of the last window.

    Args:
        manifest: The bundle.
        options: How to run its graph.
        batch_size: Most texts (or windows of long ones) per run of the graph.
        batch_tokens: Most tokens per run, padding included.
        pooling: Default of the setting.
        normalize: Default of the setting.
        dimensions: Default of the setting.
        prompts: Named prompts, over those of the bundle's `config_sentence_transformers.json`.
        prompt_name: Default of the setting.
    """

    settings_type = EmbeddingSettings
    pooling_default = "none"
    normalize_default = False
    by_token = frozenset({STATES})

    def __init__(
        self,
        manifest: Manifest,
        options: SessionOptions | None = None,
        batch_size: int = 32,
        batch_tokens: int | None = None,
        pooling: str | None = None,
        normalize: bool | None = None,
        dimensions: int | None = None,
        prompts: Mapping[str, str] | None = None,
        prompt_name: str | None = None,
    ) -> None:
        self.pooled = any(out.name == VECTOR for out in manifest.graphs["model"].outputs)
        self.outputs = (VECTOR,) if self.pooled else (STATES,)
        super().__init__(manifest, options, batch_size, batch_tokens)
        found, default = read_prompts(manifest)
        check_prompts(prompts)
        self.prompts: dict[str, str] = {**found, **(prompts or {})}
        self._defaults: dict[str, Any] = {
            "pooling": pooling,
            "normalize": normalize,
            "dimensions": dimensions,
            "prompt_name": prompt_name or default,
        }
        self.settings()  # refuses defaults that do not fit

    @property
    def width(self) -> int:
        """Numbers of a vector, before any are left out."""
        last = self.session.outputs[self.outputs[0]].shape[-1]
        if isinstance(last, int):
            return last
        [piece] = self.tokenizer.encode(["a"])  # a graph that does not say
        return int(self._run([piece])[0][self.outputs[0]].shape[-1])

    def settings(self, **given: Any) -> EmbeddingSettings:
        """The settings of a call, with everything decided that was left open."""
        defaults = dict(self._defaults)
        if given.get("prompt") is not None:
            defaults["prompt_name"] = None
        chosen = {**defaults, **{name: value for name, value in given.items() if value is not None}}
        settings: EmbeddingSettings = super().settings(**chosen)
        pooling, normalize = self._decide(settings)
        if settings.dimensions is not None and settings.dimensions > self.width:
            raise InputError(
                f"dimensions={settings.dimensions}: the model's vectors have {self.width}"
            )
        if pooling == "none":
            unfit = [name for name in ("normalize", "dimensions") if getattr(settings, name)]
            unfit += ["precision"] if settings.precision != "float32" else []
            if unfit:
                raise InputError(
                    f"{unfit[0]} is about a text's vector, and pooling='none' gives those of its "
                    f"tokens: choose a pooling of {', '.join(POOLINGS)}"
                )
        return replace(
            settings,
            pooling=pooling,
            normalize=normalize,
            prompt=add_prompt(settings.prompt, settings.prompt_name, self.prompts),
            prompt_name=None,
        )

    def _decide(self, settings: EmbeddingSettings) -> tuple[str | None, bool]:
        """Pooling and normalisation, which a graph may have in it."""
        own, unit = self.manifest.pooling, self.manifest.normalize
        if not self.pooled:
            pooling = settings.pooling or self._pooling()
            check_choice("pooling", pooling, (*POOLINGS, "none"))
            unit = self.normalize_default if unit is None else unit
            chosen = unit if settings.normalize is None else settings.normalize
            return pooling, bool(chosen) and (pooling != "none" or settings.normalize is not None)
        if settings.pooling not in (None, own):
            raise InputError(
                f"pooling={settings.pooling!r}: the graph pools by itself ({own or 'unnamed'}); "
                "export the model for feature-extraction to choose"
            )
        if settings.normalize is False and unit:
            raise InputError("normalize=False: the graph gives vectors of length 1 by itself")
        return own, bool(unit) if settings.normalize is None else settings.normalize

    def _pooling(self) -> str:
        return self.pooling_default

    def embed(self, texts: Sequence[str], **settings: Any) -> np.ndarray:
        """Vectors of texts as one array, [texts, width].

        Args:
            texts: Texts of any length.
            **settings: As of a call.

        Raises:
            InputError: A text or a setting is unfit, or pooling is "none".
        """
        chosen = self.settings(**settings)
        if chosen.pooling == "none":
            raise InputError(
                "a text's vector needs a way to pool the states of its tokens: pass pooling= one "
                f"of {', '.join(POOLINGS)}, or open the bundle with task='sentence-similarity'"
            )
        items = text_list("texts", texts)
        vectors = [vector.values for vector in self._embed(items, chosen)]
        if vectors:
            return np.stack(vectors)
        nothing = np.zeros((1, chosen.dimensions or self.width), np.float32)
        return quantize(nothing, chosen.precision)[:0]

    def similarity(
        self, first: Sequence[str], second: Sequence[str], **settings: Any
    ) -> np.ndarray:
        """Cosines of every text of `first` and every text of `second`, [first, second]."""
        if settings.get("precision") not in (None, "float32"):
            raise InputError("precision is of vectors: similarities are of those in float32")
        first, second = text_list("first", first), text_list("second", second)
        vectors = self.embed([*first, *second], **settings)
        return cosines(vectors[: len(first)], vectors[len(first) :])

    def _prompted(self, items: Sequence[Any], settings: EmbeddingSettings) -> list[str]:
        """Each text behind the prompt."""

        def read(item: Any) -> str:
            first, second = self._parts(item)
            if second is not None:
                raise InputError("a pair has no vector: expected one text")
            return f"{settings.prompt}{first}"

        return for_each(items, read)

    def _embed(self, texts: Sequence[Any], settings: EmbeddingSettings) -> list[Embedding]:
        """Each text's vector."""
        readings = self._read(self._prompted(texts, settings), settings)
        pool = None if self.pooled else POOLINGS[str(settings.pooling)]

        def keep(_: Piece, outputs: Outputs) -> np.ndarray:
            values = np.asarray(outputs[self.outputs[0]], np.float32)
            return values.copy() if pool is None else pool(values)

        found = []
        for reading, vectors in zip(readings, self._run_all(readings, keep), strict=True):
            values = join(np.stack(vectors), reading.weights, settings.pooling)
            values = shorten(values, settings.dimensions, bool(settings.normalize))
            values = quantize(values, settings.precision)
            found.append(Embedding(values, reading.truncated, len(reading.pieces)))
        return found

    def _features(self, texts: Sequence[Any], settings: EmbeddingSettings) -> list[Features]:
        """The state of every token of each text."""
        readings = self._read(self._prompted(texts, settings), settings)
        found = []
        for reading, outputs in zip(readings, self._run_all(readings), strict=True):
            places = join_windows(reading)
            tokens = tuple(reading.pieces[window].tokens[at] for window, at in places)
            states = np.stack([outputs[window][STATES][at] for window, at in places])
            found.append(Features(tokens, states, reading.truncated, len(reading.pieces)))
        return found


class SentenceEmbedder(Embedder):
    """A text's vector, or the similarity of a pair (task sentence-similarity).

    With a bundle of feature-extraction, the states are pooled here: by default as its manifest
    says, else by their mean, to vectors of length 1.
    """

    pairs = "may"
    normalize_default = True

    def _pooling(self) -> str:
        return self.manifest.pooling or "mean"

    def _answer(
        self, items: Sequence[Any], settings: EmbeddingSettings
    ) -> list[Embedding | Similarity]:
        parts = for_each(items, self._parts)  # a pair is two texts, each embedded alone
        if settings.pooling == "none":
            raise InputError("pooling='none' gives no vector of a text: take feature-extraction")
        paired = any(second is not None for _, second in parts)
        if paired and settings.precision != "float32":
            raise InputError("precision is of vectors: similarities are of those in float32")
        texts = [text for pair in parts for text in pair if text is not None]
        found = iter(self._embed(texts, settings))
        return [
            next(found) if second is None else similarity(next(found), next(found))
            for _, second in parts
        ]


class FeatureExtractor(Embedder):
    """Hidden states of a text's tokens, or pooled, the text's vector (task feature-extraction).

    Where the graph pools them itself (output sentence_embedding), the answer is the text's vector.
    Of tokens that two windows of a long text share, each is of the window that shows more of the
    text around it.
    """

    def _answer(
        self, items: Sequence[Any], settings: EmbeddingSettings
    ) -> list[Features] | list[Embedding]:
        if settings.pooling == "none" and not self.pooled:
            return self._features(items, settings)
        return self._embed(items, settings)


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosines of the rows of two arrays, [first, second]; 0 where one has no length."""
    lengths = np.outer(np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1))
    products = first @ second.T
    return np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)


def similarity(first: Embedding, second: Embedding) -> Similarity:
    """Cosine of two vectors; 0 where one has no length."""
    score = float(cosines(first.values[None], second.values[None])[0, 0])
    return Similarity(score, first.truncated or second.truncated)
