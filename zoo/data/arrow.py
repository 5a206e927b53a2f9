"""Parquet, Arrow and the folders that `datasets` writes, read with pyarrow alone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.errors import DataError


def read_arrow(
    path: Path, kind: str, split: str | None, columns: list[Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, row) of a Parquet file, an Arrow file or a folder of `datasets`.

    Args:
        path: the file or folder.
        kind: `"parquet"`, `"arrow"` or `"dataset"`.
        split: the split of a folder that has several.
        columns: the columns to read; none given reads all.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{path}: reading {kind} needs pyarrow (pip install pyarrow)") from error

    def check(schema: Any) -> list[str] | None:
        wrong = [c for c in columns if c not in schema.names]
        if wrong:
            raise DataError(f"{path}: no column {wrong[0]!r}; it has {', '.join(schema.names)}")
        return columns or None

    try:
        if kind == "parquet":
            table = pyarrow.parquet.ParquetFile(path)
            wanted = check(table.schema_arrow)
            batches: Any = table.iter_batches(columns=wanted)
        else:
            files = [path] if kind == "arrow" else _dataset_files(path, split)
            batches = (batch for file in files for batch in _stream(pyarrow, file, check))
        number = 0
        for batch in batches:
            for row in batch.to_pylist():
                yield f"row {number}", row
                number += 1
    except (pyarrow.ArrowInvalid, pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not readable as {kind} ({error})") from error


def _stream(pyarrow: Any, file: Path, check: Any) -> Iterator[Any]:
    """Batches of an Arrow file, as a stream (what `datasets` writes) or in the file format."""
    with file.open("rb") as stream:
        framed = stream.read(6) == b"ARROW1"
    with pyarrow.memory_map(str(file)) as source:
        if framed:
            opened = pyarrow.ipc.open_file(source)
            check(opened.schema)
            yield from (opened.get_batch(i) for i in range(opened.num_record_batches))
        else:
            opened = pyarrow.ipc.open_stream(source)
            check(opened.schema)
            yield from opened


def _dataset_files(folder: Path, split: str | None) -> list[Path]:
    """The Arrow files of a folder written by `save_to_disk`."""
    index = folder / "dataset_dict.json"
    if index.is_file():
        splits = json.loads(index.read_text(encoding="utf-8"))["splits"]
        if split not in splits:
            wanted = "none was asked for" if split is None else f"{split!r} is not there"
            raise DataError(f"{folder}: has the splits {', '.join(splits)}; {wanted} (split=)")
        folder = folder / split
    elif split is not None and (folder / split).is_dir():
        folder = folder / split
    state = folder / "state.json"
    if not state.is_file():
        raise DataError(f"{folder}: no state.json; expected a folder written by save_to_disk")
    try:
        names = json.loads(state.read_text(encoding="utf-8"))["_data_files"]
        return [folder / name["filename"] for name in names]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{state}: not readable ({error!r})") from error
