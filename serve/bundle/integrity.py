"""Are the files of a bundle there, whole, unchanged, and all inside it?"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from serve.bundle.wire import VARINT, fields
from serve.errors import BundleError

Check = bool | Literal["size", "full"]
HASHED_BY_DEFAULT = 32 * 2**20  # bytes: larger files are hashed only on check="full"


class FileSpec(BaseModel):
    """What a file of the bundle must be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)

    @classmethod
    def of(cls, path: str | Path) -> FileSpec:
        """Measure a file that is there."""
        return cls(sha256=sha256_of(Path(path)), bytes=Path(path).stat().st_size)


def sha256_of(path: Path) -> str:
    """Hash a file in pieces: the memory used does not depend on its size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_files(
    folder: Path, files: Mapping[str, FileSpec], graphs: Sequence[str], check: Check
) -> None:
    """Check every listed file, and that the graphs use no file that is not listed.

    Raises:
        BundleError: The first problem found, naming the file.
    """
    if check not in (True, False, "size", "full"):
        raise BundleError(f"check={check!r}: expected True, False, 'size' or 'full'")
    root = folder.resolve()
    for name, spec in files.items():
        path = inside(root, name)
        if not path.is_file():
            raise BundleError(f"{folder}: {name} is listed in the manifest but is not there")
        if not check:
            continue
        size = path.stat().st_size
        if size != spec.bytes:
            kind = "truncated" if size < spec.bytes else "too long"
            raise BundleError(
                f"{folder}: {name} is {kind}: {size} bytes, the manifest says {spec.bytes}; "
                "copy or export the bundle again"
            )
        if check == "full" or (check is True and size <= HASHED_BY_DEFAULT):
            found = sha256_of(path)
            if found != spec.sha256:
                raise BundleError(
                    f"{folder}: {name} was changed: its sha256 is {found[:12]}..., the manifest "
                    f"says {spec.sha256[:12]}...; copy or export the bundle again"
                )
    for graph in graphs:
        parent = PurePosixPath(graph).parent
        for location in sorted(external_locations(root / graph)):
            name = str(parent / location)
            inside(root, name, f"the external data of {graph}")
            if name not in files:
                raise BundleError(
                    f"{folder}: {graph} keeps weights in {name!r}, which the manifest does not list"
                )


def inside(root: Path, name: str, what: str = "the manifest") -> Path:
    """Path of `name` below `root`; refuses what leads out of it, symbolic links included."""
    pure = PurePosixPath(name)
    windows = "\\" in name or (len(name) > 1 and name[1] == ":")
    if not name or pure.is_absolute() or ".." in pure.parts or windows:
        raise BundleError(f"{what} names {name!r}: only relative paths inside the bundle may be")
    path = root / pure
    if not path.resolve().is_relative_to(root):
        raise BundleError(
            f"{what} names {name!r}, a link that leads out of the bundle to {path.resolve()}"
        )
    return path


# Where an ONNX file keeps references to external data: field numbers of onnx.proto.
_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_ATTRIBUTE, _FUNCTION_NODE, _SPARSE_TENSORS = 5, 7, (1, 2)
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = (5, 10), (6, 11)
_TENSOR_EXTERNAL, _ENTRY_KEY, _ENTRY_VALUE = 13, 1, 2


def external_locations(path: Path) -> set[str]:
    """Names of the external data files that an ONNX file refers to.

    Walks the protobuf fields without decoding them: weights kept inside the file are skipped over,
    and a graph of some hundred nodes takes a few milliseconds.

    Raises:
        BundleError: The file is not an ONNX file.
    """
    found: set[str] = set()
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            memoryview(data) as view,
        ):
            _walk_model(view, found)
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is not an ONNX file: {error}") from error
    return found


def _walk_model(view: memoryview, found: set[str]) -> None:
    for number, start, end in fields(view, 0, len(view)):
        if number == _MODEL_GRAPH:
            _walk_graph(view, start, end, found)
        elif number == _MODEL_FUNCTIONS:
            for inner, at, stop in fields(view, start, end):
                if inner == _FUNCTION_NODE:
                    _walk_node(view, at, stop, found)


def _walk_graph(view: memoryview, start: int, end: int, found: set[str]) -> None:
    for number, at, stop in fields(view, start, end):
        if number == _GRAPH_INITIALIZER:
            _walk_tensor(view, at, stop, found)
        elif number == _GRAPH_NODE:
            _walk_node(view, at, stop, found)
        elif number == _GRAPH_SPARSE:
            for inner, first, last in fields(view, at, stop):
                if inner in _SPARSE_TENSORS:
                    _walk_tensor(view, first, last, found)


def _walk_node(view: memoryview, start: int, end: int, found: set[str]) -> None:
    for number, at, stop in fields(view, start, end):
        if number != _NODE_ATTRIBUTE:
            continue
        for inner, first, last in fields(view, at, stop):
            if inner in _ATTRIBUTE_TENSORS:
                _walk_tensor(view, first, last, found)
            elif inner in _ATTRIBUTE_GRAPHS:
                _walk_graph(view, first, last, found)


def _walk_tensor(view: memoryview, start: int, end: int, found: set[str]) -> None:
    for number, at, stop in fields(view, start, end):
        if number == _TENSOR_EXTERNAL:
            entry = {
                field: str(view[first:last], "utf-8")
                for field, first, last in fields(view, at, stop)
                if last != VARINT
            }
            if entry.get(_ENTRY_KEY) == "location":
                found.add(entry.get(_ENTRY_VALUE, ""))
