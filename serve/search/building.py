"""Makes an index, or brings one up to date: only what is new or has changed is embedded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import ValidationError

from serve.bundle.integrity import external_locations
from serve.bundle.manifest import Manifest
from serve.errors import IndexFileError, InputError
from serve.pipelines.results import Result
from serve.search.index_file import (
    BundleFacts,
    IndexFacts,
    IndexFile,
    IndexSettings,
    IndexWriter,
    SourceFacts,
)
from serve.search.passages import PassageCutter
from serve.search.reading import SUFFIXES, Document, Source, Stamp
from serve.text.tokenizer import TextTokenizer

Progress = Callable[[int, int], None]
"""Called with the passages embedded so far, and how many there are to be embedded."""

_PASSAGE_TOKENS = 200
_AT_A_TIME = 256  # passages, sorted by length before they are embedded
_COPIED = 16384  # vectors


class Embedder(Protocol):
    """What an index needs of a pipeline: feature-extraction and sentence-similarity have it."""

    manifest: Manifest
    tokenizer: TextTokenizer
    prompts: Mapping[str, str]

    def settings(self, **given: Any) -> Any:
        """The settings of a call, among them `pooling` and `dimensions`."""

    def embed(self, texts: Sequence[str], **settings: Any) -> np.ndarray:
        """Vectors of texts, [texts, width]."""


@dataclass(frozen=True)
class Changes(Result):
    """What bringing an index up to date did.

    Attributes:
        added: Sources that are new.
        changed: Sources whose content is another one.
        removed: Sources that are gone.
        unchanged: How many are as they were.
        skipped: Sources that cannot be read, and why.
        embedded: Passages that were embedded.
        reused: Passages whose vectors were there.
    """

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: int
    skipped: dict[str, str]
    embedded: int
    reused: int

    def __str__(self) -> str:
        counts = {name: len(getattr(self, name)) for name in ("added", "changed", "removed")}
        counts |= {"unchanged": self.unchanged, "skipped": len(self.skipped)}
        said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        return f"{said or 'nothing'}; {self.embedded} passages embedded"


def fingerprint(manifest: Manifest) -> str:
    """A name for what decides a bundle's vectors: its graph, weights, tokenizer and pooling."""
    graph = manifest.graphs["model"].file
    names = [graph] if manifest.tokenizer is None else [graph, manifest.tokenizer.file]
    beside = Path(graph).parent
    names += [(beside / name).as_posix() for name in external_locations(manifest.path(graph))]
    facts = {
        "files": {name: manifest.files[name].sha256 for name in sorted(names)},
        "pooling": manifest.pooling,
        "normalize": manifest.normalize,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def check_embedder(embedder: Any) -> None:
    """Refuse what gives no vectors of texts.

    Raises:
        InputError: It is no pipeline of vectors.
    """
    needed = ("manifest", "tokenizer", "prompts", "embed", "settings")
    if not all(hasattr(embedder, name) for name in needed):
        raise InputError(
            "an index needs a pipeline of vectors, serve.load(BUNDLE, task='sentence-similarity'), "
            f"got {type(embedder).__name__} {embedder!r:.60}"
        )


def check_model(path: Path, facts: IndexFacts, embedder: Embedder) -> None:
    """Refuse vectors of another model.

    Raises:
        InputError: It is no pipeline of vectors.
        IndexFileError: The index was made with another bundle.
    """
    check_embedder(embedder)
    if facts.bundle.fingerprint != fingerprint(embedder.manifest):
        raise IndexFileError(
            f"{path} was made with another model ({facts.bundle.name!r}) than "
            f"{embedder.manifest.folder}: their vectors cannot be compared; use that bundle, "
            "build the index again, or give another path for it"
        )


def choose_settings(
    embedder: Embedder, old: IndexFacts | None, given: Mapping[str, Any]
) -> IndexSettings:
    """The settings given, else those that the index has, else defaults.

    Raises:
        InputError: There is no such setting, or it has no such value.
    """
    known = list(IndexSettings.model_fields)
    chosen = {name: value for name, value in given.items() if value is not None}
    for name in chosen:
        if name not in known:
            raise InputError(f"an index has no setting {name!r}: it knows {', '.join(known)}")
    if old is not None:
        chosen = {**old.settings.model_dump(), **chosen}
    else:
        chosen = _of_the_pipeline(embedder, chosen) | chosen
        prompts = embedder.prompts
        chosen.setdefault("query_prompt", prompts.get("query", ""))
        passage = prompts.get("passage", "")
        chosen.setdefault("document_prompt", prompts.get("document", passage))
    chosen["suffixes"] = tuple(chosen.get("suffixes") or SUFFIXES)
    if "passage_tokens" not in chosen:
        [prompt] = embedder.tokenizer.encode([chosen["document_prompt"]])
        room = embedder.tokenizer.spec.max_length - len(prompt)
        chosen["passage_tokens"] = max(1, min(_PASSAGE_TOKENS, room))
    if "passage_overlap" not in chosen:
        chosen["passage_overlap"] = chosen["passage_tokens"] // 5
    try:
        return IndexSettings(**chosen)
    except ValidationError as error:
        first = error.errors()[0]
        setting = str(first["loc"][0])
        raise InputError(f"{setting}={chosen[setting]!r}: {first['msg']}") from error


def _of_the_pipeline(embedder: Embedder, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a pipeline does unless told otherwise: written down, so that queries are read likewise.

    Raises:
        InputError: A setting does not fit the model.
    """
    chosen = {name: given[name] for name in ("pooling", "dimensions") if name in given}
    settings = embedder.settings(**chosen)
    if settings.pooling == "none":
        raise InputError(
            "an index needs a vector of each text, and pooling is 'none': pass pooling='mean' (or "
            "whichever the model was trained with)"
        )
    return {"pooling": settings.pooling, "dimensions": settings.dimensions}


def update(
    path: Path,
    sources: Sequence[Source],
    embedder: Embedder,
    settings: IndexSettings,
    old: IndexFile | None = None,
    skip: bool = True,
    progress: Progress | None = None,
) -> Changes:
    """Write the index of the sources to `path`, if anything is another than in the old one.

    Args:
        path: Where the index is; it is replaced when the new one is whole.
        sources: Everything that the index shall hold.
        embedder: Of the bundle that the old index was made with.
        settings: How passages and vectors are made.
        old: The index so far. With other settings nothing of it is used.
        skip: Leave out sources that cannot be read, instead of ending with their error.
        progress: Called now and then.
    """
    if old is not None and old.facts.settings != settings:
        old = None
    return _Update(path, embedder, settings, old, skip, progress).run(sources)


class _Update:
    def __init__(
        self,
        path: Path,
        embedder: Embedder,
        settings: IndexSettings,
        old: IndexFile | None,
        skip: bool,
        progress: Progress | None,
    ) -> None:
        self.path, self.embedder, self.settings = path, embedder, settings
        self.old, self.skip, self.progress = old, skip, progress
        self.known = old.facts.sources if old else {}
        self.cutter = PassageCutter(
            embedder.tokenizer, settings.passage_tokens, settings.passage_overlap
        )
        self.facts: dict[str, SourceFacts] = {}
        self.skipped: dict[str, str] = {}
        self.kept: list[tuple[int, int]] = []  # rows of the old index

    def run(self, sources: Sequence[Source]) -> Changes:
        with IndexWriter(self.path) as writer:
            new = [source for source in sources if not self._keep(source, writer)]
            reused = len(writer.starts) - 1
            for source in new:
                self._add(source, writer)
            passages = len(writer.starts) - 1
            if self.old is None or self.facts != self.known:
                width = self.embedder.embed([], **self._embedding()).shape[1]
                facts = IndexFacts(
                    bundle=BundleFacts(
                        name=self.embedder.manifest.name,
                        fingerprint=fingerprint(self.embedder.manifest),
                    ),
                    settings=self.settings,
                    width=width,
                    passages=passages,
                    sources=self.facts,
                )
                writer.finish(facts, self._vectors(writer, reused))
        before, after = set(self.known), set(self.facts)
        read = {source.name for source in new} & after
        return Changes(
            added=tuple(sorted(read - before)),
            changed=tuple(sorted(read & before)),
            removed=tuple(sorted(before - after)),
            unchanged=len(after - read),
            skipped=self.skipped,
            embedded=passages - reused,
            reused=reused,
        )

    def _keep(self, source: Source, writer: IndexWriter) -> bool:
        """Take over a source that is as it was; True also if it cannot be read."""
        known = self.known.get(source.name)
        if known is None or self.old is None:
            return False
        try:
            stamp = source.stamp()
            if stamp is None or stamp != Stamp(known.size or 0, known.mtime_ns or 0):
                content, _ = source.read()
                if content != known.sha256:
                    return False
        except InputError as error:
            self._skip(source, error)
            return True
        self._note(source, stamp, known.sha256, len(writer.starts) - 1, known.count)
        for row in range(known.first, known.first + known.count):
            writer.add(self.old.line(row))
        self.kept.append((known.first, known.first + known.count))
        return True

    def _add(self, source: Source, writer: IndexWriter) -> None:
        first = len(writer.starts) - 1
        try:
            stamp = source.stamp()  # before reading: what changes meanwhile is seen next time
            content, documents = source.read()
            lines = [
                line for document in documents for line in self._passages(source.name, document)
            ]
        except InputError as error:
            self._skip(source, error)
            return
        for line in lines:
            writer.add(line)
        self._note(source, stamp, content, first, len(lines))

    def _note(
        self, source: Source, stamp: Stamp | None, content: str, first: int, count: int
    ) -> None:
        size, mtime = (None, None) if stamp is None else (stamp.size, stamp.mtime_ns)
        self.facts[source.name] = SourceFacts(
            size=size, mtime_ns=mtime, sha256=content, first=first, count=count
        )

    def _skip(self, source: Source, error: InputError) -> None:
        if not self.skip:
            raise InputError(f"{source.name}: {error}") from error
        self.skipped[source.name] = str(error)

    def _passages(self, name: str, document: Document) -> Iterator[bytes]:
        """The lines of a document's passages."""
        more: dict[str, Any] = {"line": document.line, "id": document.id}
        more["metadata"] = dict(document.metadata) or None
        more = {key: value for key, value in more.items() if value is not None}
        for start, end in self.cutter(document.text):
            facts = {"source": name, "start": start, "end": end, "text": document.text[start:end]}
            yield json.dumps(facts | more, ensure_ascii=False).encode() + b"\n"

    def _vectors(self, writer: IndexWriter, reused: int) -> Iterator[np.ndarray]:
        """Of the passages taken over, then of the new ones."""
        for first, end in self.kept:
            assert self.old is not None
            for at in range(first, end, _COPIED):
                yield self.old.vectors[at : min(at + _COPIED, end)]
        total, done = len(writer.starts) - 1 - reused, 0
        lines = writer.lines(reused)
        while texts := [json.loads(line)["text"] for line in islice(lines, _AT_A_TIME)]:
            if self.progress:
                self.progress(done, total)
            yield self._unit(self.embedder.embed(texts, **self._embedding()), texts)
            done += len(texts)
        if self.progress and total:
            self.progress(total, total)

    def _embedding(self) -> dict[str, Any]:
        return embedding_settings(self.settings, self.settings.document_prompt)

    def _unit(self, vectors: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if wrong.size:
            raise InputError(f"the model gives no finite vector for {texts[wrong[0]]!r:.80}")
        return unit(vectors)


def embedding_settings(settings: IndexSettings, prompt: str) -> dict[str, Any]:
    """How the embedder is to be called."""
    chosen = {"pooling": settings.pooling, "dimensions": settings.dimensions, "prompt": prompt}
    return {name: value for name, value in chosen.items() if value not in (None, "")}


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row without length stays as it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=vectors.astype(np.float32), where=lengths > 0)
