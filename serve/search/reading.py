"""Reads the texts of a folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from serve.errors import InputError

SUFFIXES = (".txt", ".text", ".md", ".markdown", ".rst", ".jsonl")
RECORDS = ".jsonl"


@dataclass(frozen=True)
class Document:
    """A text to be searched.

    Attributes:
        text: All of it.
        line: Where in a file of records it stands, from 1.
        id: What a record or the caller calls it.
        metadata: What else is known of it; JSON values.
    """

    text: str
    line: int | None = None
    id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stamp:
    """What tells whether a source has changed: its size and time, and if they have, its bytes."""

    size: int
    mtime_ns: int


class Source(Protocol):
    """What an index is made of: a file, or a text that the caller gave."""

    name: str

    def stamp(self) -> Stamp | None:
        """Size and time; None where only the content can tell."""

    def read(self) -> tuple[str, list[Document]]:
        """sha256 of the content, and its documents.

        Raises:
            InputError: It cannot be read; the message says why.
        """


class FileSource:
    """A file of a folder: one text, or with `.jsonl` a record a line.

    Characters are counted in the text as it stands in the file, without a byte order mark.
    """

    def __init__(self, folder: Path, name: str, text_key: str) -> None:
        self.name = name
        self._path = folder / name
        self._text_key = text_key

    def stamp(self) -> Stamp | None:
        """Size and time of the file."""
        try:
            found = self._path.stat()
        except OSError as error:
            raise InputError(f"{error.strerror}") from error
        return Stamp(found.st_size, found.st_mtime_ns)

    def read(self) -> tuple[str, list[Document]]:
        """sha256 of the file, and its documents."""
        try:
            content = self._path.read_bytes()
            text = content.decode("utf-8-sig")
        except OSError as error:
            raise InputError(f"{error.strerror}") from error
        except UnicodeDecodeError as error:
            raise InputError(f"not UTF-8: {error.reason} at byte {error.start}") from error
        if self._path.suffix.lower() == RECORDS:
            documents = list(_records(text, self._text_key))
        else:
            documents = [Document(text)]
        return hashlib.sha256(content).hexdigest(), documents


class TextSource:
    """A text that the caller gave, by its id."""

    def __init__(self, name: str, text: str, metadata: Mapping[str, Any]) -> None:
        self.name = name
        self._document = Document(text, None, name, metadata)

    def stamp(self) -> Stamp | None:
        """Texts have no time."""
        return None

    def read(self) -> tuple[str, list[Document]]:
        """sha256 of the text with its metadata, and the text."""
        content = [self._document.text, dict(self._document.metadata)]
        try:
            written = json.dumps(content, ensure_ascii=False, sort_keys=True)
            encoded = written.encode("utf-8")
        except (TypeError, ValueError) as error:
            raise InputError(f"text {self.name!r} and its metadata are no JSON: {error}") from error
        return hashlib.sha256(encoded).hexdigest(), [self._document]


def files_of(folder: Path, suffixes: Collection[str], text_key: str) -> list[FileSource]:
    """The files of a folder and those below it, by name; hidden ones and linked folders are not.

    Raises:
        InputError: There is no such folder, or no file of these suffixes in it.
    """
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "is not there"
        raise InputError(f"{folder} {found}: expected a folder of texts")
    wanted = {suffix.lower() for suffix in suffixes}
    names = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [
            (Path(place) / name).relative_to(folder).as_posix()
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in wanted
        ]
    if not names:
        raise InputError(f"{folder} holds no text: expected files that end in {sorted(wanted)}")
    return [FileSource(folder, name, text_key) for name in sorted(names)]


def texts_of(
    texts: Sequence[str],
    ids: Sequence[str] | None,
    metadata: Sequence[Mapping[str, Any] | None] | None,
) -> list[TextSource]:
    """Texts with their ids ("0", "1", ... by default) and metadata."""
    names = [str(at) for at in range(len(texts))] if ids is None else list(ids)
    known: Sequence[Mapping[str, Any] | None]
    known = [None] * len(texts) if metadata is None else metadata
    for what, values in (("ids", names), ("metadata", known)):
        if len(values) != len(texts):
            raise InputError(f"{len(values)} {what} for {len(texts)} texts: expected one for each")
    seen: set[str] = set()
    for name, text in zip(names, texts, strict=True):
        if not isinstance(text, str) or not isinstance(name, str):
            raise InputError(f"expected a text and an id, got {text!r:.60} and {name!r:.60}")
        if name in seen:
            raise InputError(f"id {name!r} is given twice: ids tell texts apart")
        seen.add(name)
    return [
        TextSource(name, text, facts or {})
        for name, text, facts in zip(names, texts, known, strict=True)
    ]


def _records(text: str, key: str) -> Iterator[Document]:
    """The records of JSON lines: `key` holds the text, "id" its name, the rest is metadata."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputError(f"line {number} is not JSON: {error}") from error
        if not isinstance(record, dict) or not isinstance(record.get(key), str):
            raise InputError(f"line {number} is not an object with a text under {key!r}")
        facts = {name: value for name, value in record.items() if name not in (key, "id")}
        identity = record.get("id")
        yield Document(record[key], number, None if identity is None else str(identity), facts)
