"""The index of a folder of texts, and what it answers."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from serve.errors import InputError
from serve.pipelines.base import check_count, check_size, text_list
from serve.pipelines.results import Result
from serve.search.building import (
    Changes,
    Embedder,
    Progress,
    check_embedder,
    check_model,
    choose_settings,
    embedding_settings,
    unit,
    update,
)
from serve.search.index_file import IndexFile
from serve.search.nearest import Backend, Nearest, nearest
from serve.search.reading import Source, files_of, texts_of

_CANDIDATES = 50


@dataclass(frozen=True)
class Hit(Result):
    """A passage that answers a query.

    Attributes:
        score: What hits are sorted by: the similarity, or what a reranker says.
        similarity: Cosine of the passage's vector and the query's.
        text: The passage.
        source: The file that it is of, below the folder; or the id of a text.
        start: Its first character in the text.
        end: One past its last character.
        line: In a file of records, the line of its record, from 1.
        id: What the record or the caller calls the text.
        metadata: What else the record or the caller says.
    """

    score: float
    similarity: float
    text: str
    source: str
    start: int
    end: int
    line: int | None = None
    id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        return f"{self.score:.4f}\t{place}:{self.start}-{self.end}\t{' '.join(self.text.split())}"


class Scorer(Protocol):
    """What reranks hits, such as `serve.pipelines.rerank.Reranker`."""

    def scores(self, query: str, documents: Sequence[str]) -> np.ndarray:
        """How well each document answers, [documents]."""


class Index:
    """Texts that can be searched by meaning.

    >>> embedder = serve.load("bundles/minilm")
    >>> index = serve.Index.of_folder(embedder, "notes")
    >>> index.search("how do I renew my passport?", top_k=3)

    Args:
        path: The file of an index that was built.
        embedder: The pipeline of the bundle that it was built with.
        backend: How to find the nearest vectors, see `serve.search.nearest.nearest`.

    Attributes:
        changes: What building it did; None where it was opened as it is.

    Raises:
        IndexFileError: The file is missing or broken, or of another model.
    """

    def __init__(self, path: str | Path, embedder: Embedder, backend: Backend = "numpy") -> None:
        check_embedder(embedder)
        self.file = IndexFile(path)
        check_model(self.file.path, self.file.facts, embedder)
        self.embedder = embedder
        self.backend = backend
        self.changes: Changes | None = None
        self._nearest: Nearest | None = None

    @classmethod
    def of_folder(
        cls,
        embedder: Embedder,
        folder: str | Path,
        path: str | Path | None = None,
        *,
        rebuild: bool = False,
        progress: Progress | None = None,
        backend: Backend = "numpy",
        **settings: Any,
    ) -> Index:
        """Index the texts of a folder; where an index is there, bring it up to date.

        Args:
            embedder: A pipeline that gives vectors: sentence-similarity or feature-extraction.
            folder: Texts (`.txt`, `.md`, ...) and records (`.jsonl`), also in folders below.
            path: The index; by default beside the folder, `NAME.index`.
            rebuild: Embed everything again, also with another model.
            progress: Called with the passages embedded and those to be embedded.
            backend: As of `Index`.
            **settings: Of `serve.search.index_file.IndexSettings`: passage_tokens (200, or what the
                model reads), passage_overlap (a fifth of it), pooling, dimensions, query_prompt,
                document_prompt, suffixes, text_key. By default what the index was built with.

        Raises:
            InputError: There is no text, or a setting is unfit.
            IndexFileError: The index that is there is broken or of another model.
        """
        check_embedder(embedder)
        root = Path(folder)
        target = index_path(root) if path is None else Path(path)
        old = None if rebuild or not target.exists() else IndexFile(target)
        _check_kind(old, files=True)
        chosen = choose_settings(embedder, old.facts if old else None, settings)
        sources = files_of(root, chosen.suffixes, chosen.text_key)
        return cls._built(target, sources, embedder, chosen, old, True, progress, backend)

    @classmethod
    def of_texts(
        cls,
        embedder: Embedder,
        texts: Iterable[str],
        path: str | Path,
        *,
        ids: Iterable[str] | None = None,
        metadata: Iterable[Mapping[str, Any] | None] | None = None,
        rebuild: bool = False,
        progress: Progress | None = None,
        backend: Backend = "numpy",
        **settings: Any,
    ) -> Index:
        """Index texts; where an index is there, bring it up to date by their ids.

        Args:
            embedder: As of `of_folder`.
            texts: All that the index shall hold.
            path: The index.
            ids: A name for each text; by default "0", "1", ...
            metadata: JSON values that a hit of the text brings along.
            rebuild: As of `of_folder`.
            progress: As of `of_folder`.
            backend: As of `Index`.
            **settings: As of `of_folder`.

        Raises:
            InputError: A text, an id or a setting is unfit; or the index is of a folder's files.
            IndexFileError: As of `of_folder`.
        """
        check_embedder(embedder)
        named = texts_of(
            text_list("texts", texts),
            None if ids is None else text_list("ids", ids),
            None if metadata is None else text_list("metadata", metadata),
        )
        target = Path(path)
        old = None if rebuild or not target.exists() else IndexFile(target)
        _check_kind(old, files=False)
        chosen = choose_settings(embedder, old.facts if old else None, settings)
        return cls._built(target, named, embedder, chosen, old, False, progress, backend)

    @classmethod
    def _built(
        cls,
        path: Path,
        sources: Sequence[Source],
        embedder: Embedder,
        settings: Any,
        old: IndexFile | None,
        skip: bool,
        progress: Progress | None,
        backend: Backend,
    ) -> Index:
        if old is not None:
            check_model(path, old.facts, embedder)
        changes = update(path, sources, embedder, settings, old, skip, progress)
        index = cls(path, embedder, backend)
        index.changes = changes
        return index

    def __len__(self) -> int:
        """Number of passages."""
        return len(self.file)

    def search(
        self,
        queries: str | Sequence[str],
        top_k: int = 10,
        *,
        min_similarity: float | None = None,
        reranker: Scorer | None = None,
        candidates: int | None = None,
    ) -> Any:
        """The passages nearest to each query, best first.

        Args:
            queries: A query, or several.
            top_k: Hits of a query at most.
            min_similarity: Leave out passages of a lower cosine.
            reranker: Reads each query with its candidates and sorts them anew.
            candidates: How many passages the reranker reads per query (50, or `top_k`).

        Returns:
            `list[Hit]` of a query, or a list of these in the order of the queries.

        Raises:
            InputError: A query is empty, or a setting is unfit.
        """
        check_size("top_k", top_k)
        check_count("candidates", candidates)
        _check_similarity(min_similarity)
        if reranker is not None and not callable(getattr(reranker, "scores", None)):
            raise InputError(
                "reranker: expected a pipeline, serve.load(BUNDLE, task='reranking'), got "
                f"{type(reranker).__name__} {reranker!r:.60}"
            )
        single = isinstance(queries, str)
        asked = [queries] if isinstance(queries, str) else text_list("queries", queries)
        for query in asked:
            if not isinstance(query, str) or not query.strip():
                raise InputError(f"queries: {query!r:.60} asks for nothing: expected a text")
        count = top_k if reranker is None else max(top_k, candidates or _CANDIDATES)
        answers = self._nearest_hits(asked, count)
        if min_similarity is not None:
            answers = [[hit for hit in hits if hit.score >= min_similarity] for hits in answers]
        if reranker is not None:
            answers = [
                rerank(query, hits, reranker, top_k)
                for query, hits in zip(asked, answers, strict=True)
            ]
        return answers[0] if single else answers

    def _nearest_hits(self, queries: Sequence[str], count: int) -> list[list[Hit]]:
        if not queries or not len(self):
            return [[] for _ in queries]
        settings = self.file.facts.settings
        vectors = self.embedder.embed(
            queries, **embedding_settings(settings, settings.query_prompt)
        )
        if self._nearest is None:
            self._nearest = nearest(self.file.vectors, self.backend)
        scores, rows = self._nearest(unit(vectors), count)
        return [
            [self._hit(row, score) for row, score in zip(*line, strict=True) if row >= 0]
            for line in zip(rows.tolist(), scores.tolist(), strict=True)
        ]

    def _hit(self, row: int, score: float) -> Hit:
        return Hit(score=score, similarity=score, **self.file.passage(row))


def _check_similarity(value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (number and -1 <= value <= 1):
        raise InputError(f"min_similarity={value!r}: expected a cosine, from -1 to 1")


def _check_kind(old: IndexFile | None, files: bool) -> None:
    """Files and texts do not share an index: each would drop the others as gone."""
    if old is None:
        return
    of_files = any(source.size is not None for source in old.facts.sources.values())
    if old.facts.sources and of_files != files:
        there, given = ("a folder", "texts") if of_files else ("texts", "a folder")
        raise InputError(
            f"{old.path} is the index of {there}: give another path for {given}, or rebuild=True"
        )


def rerank(query: str, hits: Sequence[Hit], reranker: Scorer, top_k: int) -> list[Hit]:
    """The best hits by a model that reads query and passage together."""
    if not hits:
        return []
    scores = reranker.scores(query, [hit.text for hit in hits]).tolist()
    scored = [replace(hit, score=score) for hit, score in zip(hits, scores, strict=True)]
    return heapq.nlargest(top_k, scored, key=lambda hit: hit.score)


def index_path(folder: str | Path) -> Path:
    """Where the index of a folder is, unless it is said."""
    real = Path(folder).resolve()
    if not real.name:
        raise InputError(f"{folder} has no name: say where the index shall be")
    return real.with_name(f"{real.name}.index")
