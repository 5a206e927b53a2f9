"""One file for an index: vectors and passages, in the form of numpy's .npz.

It is a zip archive whose members are stored as they are:

- `vectors.npy`: float32 [passages, width], of length 1, aligned so that it can be mapped;
- `passages.jsonl`: one JSON object per passage, in the order of the vectors;
- `starts.npy`: uint64 [passages + 1], where in `passages.jsonl` each begins;
- `index.json`: what it was made of, and how.

So `numpy.load(path)["vectors"]` and `unzip -p path passages.jsonl` read it as well. Nothing in it
is executed: no pickles.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serve.errors import IndexFileError

VECTORS, PASSAGES, STARTS, FACTS = "vectors.npy", "passages.jsonl", "starts.npy", "index.json"
_ALIGNMENT = 64
_DATE = (1980, 1, 1, 0, 0, 0)  # equal indexes are equal files
_LOCAL_HEADER, _ZIP64_EXTRA, _EXTRA_HEADER = 30, 20, 4  # bytes, of the zip format
_FILLER = 0xD935  # the id under which Android's zipalign pads


class Part(BaseModel):
    """A part of index.json: no unknown key."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BundleFacts(Part):
    """The model that the vectors are of."""

    name: str
    fingerprint: str


class IndexSettings(Part):
    """How texts become passages, and passages vectors."""

    passage_tokens: int
    passage_overlap: int
    pooling: str | None = None
    dimensions: int | None = None
    query_prompt: str = ""
    document_prompt: str = ""
    suffixes: tuple[str, ...] = ()
    text_key: str = "text"


class SourceFacts(Part):
    """A source, and which passages are of it."""

    size: int | None
    mtime_ns: int | None
    sha256: str
    first: int
    count: int


class IndexFacts(Part):
    """index.json."""

    schema_version: int = 1
    bundle: BundleFacts
    settings: IndexSettings
    width: int = Field(ge=0)
    passages: int = Field(ge=0)
    sources: dict[str, SourceFacts]


class IndexFile:
    """An index that was written; vectors and passages are read from the file as they are needed.

    Raises:
        IndexFileError: It is missing, incomplete, changed or of an unknown make.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise IndexFileError(f"no index at {self.path}")
        try:
            with zipfile.ZipFile(self.path) as archive:
                self.facts = _facts(archive.read(FACTS))
                places = {name: _place(archive, name) for name in (VECTORS, PASSAGES, STARTS)}
            self.vectors = _array(self.path, *places[VECTORS])
            self._starts = _array(self.path, *places[STARTS])
            begin, size = places[PASSAGES]
            self._lines = _mapped(self.path, np.dtype(np.uint8), begin, (size,))
        except (zipfile.BadZipFile, KeyError, ValueError, OSError, ValidationError) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise IndexFileError(
                f"{self.path} is no whole search index ({first}): delete it and build it again"
            ) from error
        wanted = (self.facts.passages, self.facts.width)
        if (
            self.vectors.shape != wanted
            or self.vectors.dtype != np.float32
            or self._starts.shape != (wanted[0] + 1,)
            or int(self._starts[-1]) != size
        ):
            raise IndexFileError(
                f"{self.path} is no whole search index: its parts do not belong together; "
                "delete it and build it again"
            )

    def __len__(self) -> int:
        return self.facts.passages

    def line(self, row: int) -> bytes:
        """The line of a passage as it stands in the file."""
        return bytes(self._lines[int(self._starts[row]) : int(self._starts[row + 1])])

    def passage(self, row: int) -> dict[str, Any]:
        """What is known of a passage."""
        return json.loads(self.line(row))


class IndexWriter:
    """Writes an index beside `path` and puts it in its place when it is whole.

    Used in a `with` block: whatever ends that early leaves the index that was there.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._temporary: Path | None = None
        self._spool: BinaryIO | None = None
        self.starts = [0]

    def __enter__(self) -> IndexWriter:
        name = f".{self.path.name}.{os.getpid()}-{secrets.token_hex(4)}"
        self._temporary = self.path.with_name(name)
        try:
            self._temporary.touch(exist_ok=False)
            self._spool = tempfile.TemporaryFile(dir=self.path.parent)
        except OSError as error:
            raise IndexFileError(
                f"no index can be written in {self.path.parent}: {error.strerror}"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._spool is not None:
            self._spool.close()
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)

    def add(self, line: bytes) -> None:
        """Add a passage's line, which ends in a line feed."""
        assert self._spool is not None
        self._spool.write(line)
        self.starts.append(self.starts[-1] + len(line))

    def lines(self, first: int) -> Iterator[bytes]:
        """The lines added so far, from that of passage `first` on."""
        assert self._spool is not None
        at = self.starts[first]
        for end in self.starts[first + 1 :]:
            self._spool.seek(at)
            yield self._spool.read(end - at)
            at = end

    def finish(self, facts: IndexFacts, blocks: Iterable[np.ndarray]) -> None:
        """Write the file: one row of the blocks per passage that was added."""
        assert self._spool is not None and self._temporary is not None
        shape = (facts.passages, facts.width)
        with self._temporary.open("wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                with archive.open(_aligned(VECTORS), "w", force_zip64=True) as member:
                    _write_header(member, np.dtype(np.float32), shape)
                    for block in blocks:
                        member.write(np.ascontiguousarray(block, np.float32).data)
                with archive.open(_info(PASSAGES), "w", force_zip64=True) as member:
                    self._spool.seek(0)
                    while piece := self._spool.read(2**20):
                        member.write(piece)
                with archive.open(_info(STARTS), "w", force_zip64=True) as member:
                    starts = np.array(self.starts, np.uint64)
                    _write_header(member, starts.dtype, starts.shape)
                    member.write(starts.data)
                archive.writestr(_info(FACTS), facts.model_dump_json(indent=1))
            file.flush()
            os.fsync(file.fileno())
        self._temporary.replace(self.path)


def _facts(text: bytes) -> IndexFacts:
    facts = json.loads(text)
    if not isinstance(facts, dict) or facts.get("schema_version") != 1:
        raise ValueError("index.json is not of schema_version 1")
    return IndexFacts.model_validate(facts)


def _place(archive: zipfile.ZipFile, name: str) -> tuple[int, int]:
    """Where in the file a member's content begins, and its size."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    file = archive.fp
    assert file is not None
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER)
    names, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    return info.header_offset + _LOCAL_HEADER + names + extra, info.file_size


def _array(path: Path, start: int, size: int) -> np.ndarray:
    """The array of a .npy member, left on disk."""
    with path.open("rb") as file:
        file.seek(start)
        version = npy.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"an array of format {version}")
        shape, fortran, dtype = npy.read_array_header_1_0(file)
        begin = file.tell()
    if fortran or dtype.hasobject or begin + dtype.itemsize * math.prod(shape) != start + size:
        raise ValueError("an array of another size than it says")
    return _mapped(path, dtype, begin, shape)


def _mapped(path: Path, dtype: np.dtype, begin: int, shape: tuple[int, ...]) -> np.ndarray:
    if 0 in shape:
        return np.empty(shape, dtype)  # nothing cannot be mapped
    return np.memmap(path, dtype, "r", begin, shape)


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _DATE)
    info.external_attr = 0o644 << 16
    return info


def _aligned(name: str) -> zipfile.ZipInfo:
    """The first member, with as much filling as makes its content begin at a whole 64 bytes."""
    info = _info(name)
    before = _LOCAL_HEADER + len(name) + _ZIP64_EXTRA + _EXTRA_HEADER
    filling = -before % _ALIGNMENT
    info.extra = _FILLER.to_bytes(2, "little") + filling.to_bytes(2, "little") + bytes(filling)
    return info


def _write_header(member: Any, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    facts = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(member, facts)
