"""Documents sorted by a model that reads each together with the query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serve.bundle.manifest import Manifest
from serve.errors import InputError
from serve.pipelines.base import check_choice, check_count, for_each
from serve.pipelines.encoder import EncoderPipeline, EncoderSettings, label_names, softmax
from serve.pipelines.results import Result
from serve.runtime.session import SessionOptions

_RELEVANT = ("entailment", "relevant", "true", "yes", "1", "label_1")
_PAIRS_AT_A_TIME = 1024


@dataclass(frozen=True)
class RankedDocument:
    """A document with its score; `index` is its place among those that were given."""

    index: int
    score: float
    text: str


@dataclass(frozen=True)
class Ranking(Result):
    """The documents of a query, best first.

    Attributes:
        documents: All, or the best `top_k`.
        truncated: The end of a document was not read.
    """

    documents: tuple[RankedDocument, ...]
    truncated: bool = False

    def __str__(self) -> str:
        return "\n".join(f"{found.score:.4f}\t{found.text}" for found in self.documents)


@dataclass(frozen=True)
class RerankSettings(EncoderSettings):
    """Settings of reranking.

    Attributes:
        top_k: Keep so many documents; all by default.
        scores: "probability", or "raw" for the model's logit.
    """

    top_k: int | None = None
    scores: str = "probability"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("top_k", self.top_k)
        check_choice("scores", self.scores, ("probability", "raw"))


class Reranker(EncoderPipeline):
    """Sorts documents by how well they answer a query (task reranking).

    The bundle is a classifier of pairs (a cross-encoder): with one label, whose logit says how well
    the document fits, or with a label that says it, as those of inference have "entailment". Of a
    document longer than the model reads, the best window counts (MaxP in
    https://arxiv.org/abs/1905.09217).

    An input is `{"query": ..., "documents": [...]}` or a tuple of both; a single one may also be
    given as `reranker(query, documents)`.

    Args:
        manifest: The bundle.
        options: How to run its graph.
        batch_size: Most pairs per run of the graph.
        batch_tokens: Most tokens per run, padding included.
        label: The label that says that a document fits, where the model has several.
    """

    settings_type = RerankSettings
    pairs = "must"
    pair_names = ("query", "documents")
    windowed = "second"

    def __init__(
        self,
        manifest: Manifest,
        options: SessionOptions | None = None,
        batch_size: int = 32,
        batch_tokens: int | None = None,
        label: str | None = None,
    ) -> None:
        super().__init__(manifest, options, batch_size, batch_tokens)
        count = self.session.outputs["logits"].shape[-1]
        self.label = relevant_label(
            label_names(manifest, count if isinstance(count, int) else 0), label
        )

    @classmethod
    def input_keys(cls) -> tuple[tuple[str, ...], ...]:
        """A query with its documents."""
        return (("query", "documents"),)

    @property
    def task(self) -> str:
        """Reranking, whatever else the bundle can do."""
        return "reranking"

    def __call__(self, inputs: Any, documents: Sequence[str] | None = None, **settings: Any) -> Any:
        """Rank the documents of one query, or of each of a list or an iterator.

        Args:
            inputs: Queries with their documents; or a query.
            documents: The documents of the query.
            **settings: Of `RerankSettings`.

        Returns:
            A `Ranking`, or several, as `Pipeline.__call__` does.
        """
        if documents is not None:
            return super().__call__((inputs, documents), **settings)
        return super().__call__(inputs, **settings)

    def scores(self, query: str, documents: Sequence[str], **settings: Any) -> np.ndarray:
        """How well each document answers, [documents], in their order."""
        chosen = self.settings(**settings)
        return self._score([(query, text) for text in documents], chosen)[0]

    def _answer(self, items: Sequence[Any], settings: RerankSettings) -> list[Ranking]:
        asked = for_each(items, _query)
        pairs = [(query, text) for query, documents in asked for text in documents]
        owners = [row for row, (_, documents) in enumerate(asked) for _ in documents]
        try:
            scores, cut = self._score(pairs, settings)
        except InputError as error:
            error.row = None if error.row is None else owners[error.row]
            raise
        rankings = []
        at = 0
        for _, documents in asked:
            part = slice(at, at + len(documents))
            order = np.argsort(-scores[part], kind="stable")[: settings.top_k].tolist()
            found = tuple(
                RankedDocument(index, float(scores[at + index]), documents[index])
                for index in order
            )
            rankings.append(Ranking(found, bool(cut[part].any())))
            at = part.stop
        return rankings

    def _score(
        self, pairs: Sequence[tuple[str, str]], settings: RerankSettings
    ) -> tuple[np.ndarray, np.ndarray]:
        """Score of each pair, and whether its end was not read."""
        scores = np.empty(len(pairs))
        cut = np.zeros(len(pairs), bool)
        for first in range(0, len(pairs), _PAIRS_AT_A_TIME):
            try:
                readings = self._read_pairs(pairs[first : first + _PAIRS_AT_A_TIME], settings)
            except InputError as error:
                error.row = None if error.row is None else error.row + first
                raise
            for row, outputs in enumerate(self._run_all(readings), first):
                logits = np.stack([found["logits"] for found in outputs]).astype(np.float64)
                scores[row] = self._values(logits, settings.scores).max()
                cut[row] = readings[row - first].truncated
        return scores, cut

    def _values(self, logits: np.ndarray, kind: str) -> np.ndarray:
        """From the logits of windows, [windows, labels], to [windows]."""
        if kind == "raw":
            return logits[:, self.label]
        if logits.shape[1] == 1:
            return 1.0 / (1.0 + np.exp(-logits[:, 0]))
        return softmax(logits)[:, self.label]


def relevant_label(labels: Sequence[str], chosen: str | None = None) -> int:
    """Which of a classifier's labels says that a document answers a query.

    Raises:
        InputError: None of them does by its name, or there is no label of the name chosen.
    """
    if chosen is not None:
        if chosen not in labels:
            raise InputError(f"label={chosen!r}: the model's labels are {', '.join(labels)}")
        return list(labels).index(chosen)
    if len(labels) == 1:
        return 0
    named = [at for at, name in enumerate(labels) if name.lower() in _RELEVANT]
    if len(named) != 1:
        raise InputError(
            f"which of the labels {', '.join(labels)} says that a document fits? pass label=; "
            f"names that are understood are {', '.join(_RELEVANT)}"
        )
    return named[0]


def _query(item: Any) -> tuple[str, list[str]]:
    """The query of an input, and its documents."""
    if isinstance(item, Mapping):
        if set(item) != {"query", "documents"}:
            raise InputError(
                f"an input of reranking has the keys 'query' and 'documents', not {sorted(item)}"
            )
        query, documents = item["query"], item["documents"]
    elif isinstance(item, tuple) and len(item) == 2:
        query, documents = item
    else:
        raise InputError(f"expected a query and a list of documents, got {item!r:.80}")
    if not isinstance(query, str):
        raise InputError(f"expected a query, got {type(query).__name__}: {query!r:.60}")
    if isinstance(documents, str) or not isinstance(documents, Sequence):
        raise InputError(f"expected a list of documents, got {documents!r:.80}")
    for text in documents:
        if not isinstance(text, str):
            raise InputError(f"expected a document, got {type(text).__name__}: {text!r:.60}")
    return query, list(documents)
