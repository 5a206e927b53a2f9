"""Readers of the usual data files; every error names the file, the line and what was expected."""

import csv
import difflib
import io
import json
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from zoo.data.open_text import open_text
from zoo.errors import ConfigError, DataError

Example = dict[str, Any]
SUFFIXES = {
    ".txt": "text", ".text": "text", ".csv": "csv", ".tsv": "tsv", ".tab": "tsv",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet",
    ".conll": "conll", ".bio": "conll", ".bmes": "conll", ".arrow": "arrow",
}  # fmt: skip
FORMATS = ("text", "csv", "tsv", "jsonl", "json", "squad", "conll", "parquet", "arrow", "dataset")


def read(
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    header: bool = True,
    delimiter: str | None = None,
    quoting: bool | None = None,
    encoding: str = "utf-8",
    errors: str = "strict",
    unit: str = "line",
    split: str | None = None,
    limit: int | None = None,
    **fields: str | int,
) -> Iterator[Example]:
    """Read examples, one dict each; `.gz` files are opened transparently.

    Args:
        path: a file, or the folder that `datasets` writes with `save_to_disk`.
        format: one of `FORMATS`; None goes by the file name. `"squad"` is SQuAD's JSON, `"conll"`
            one token and tag a line with blank lines between sentences.
        header: CSV/TSV: whether the first row names the columns; without it columns are numbers
            from 0.
        delimiter: CSV/TSV: the column separator.
        quoting: CSV/TSV: whether double quotes are special; None means yes for CSV and no for TSV.
        encoding: of text files; a byte-order mark is skipped in UTF-8.
        errors: `"strict"` reports undecodable bytes, `"replace"` puts U+FFFD.
        unit: plain text: one example per `"line"` (blank ones skipped), `"paragraph"` or `"file"`.
        split: the split of a datasets folder that has several.
        limit: stop after so many examples.
        **fields: field of the example = column name or number, e.g. `text="review", label=0`. None
            given: all columns under their own names.

    Raises:
        DataError: when the file is missing, unreadable or not of the form asked for.
        ConfigError: for an unknown format or unit.
    """
    path = Path(path)
    kind = format or _guess(path)
    if kind not in FORMATS:
        near = difflib.get_close_matches(kind, FORMATS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(f"unknown format {kind!r}{hint}; expected one of: {', '.join(FORMATS)}")
    if unit not in ("line", "paragraph", "file"):
        raise ConfigError(f"unit={unit!r}; expected line, paragraph or file")
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if path.is_dir() != (kind == "dataset"):
        what = "a folder" if path.is_dir() else "a file"
        raise DataError(f"{path}: is {what}, which does not fit format {kind!r}")
    text = {"encoding": encoding, "errors": errors}
    rows: Iterator[tuple[Any, Example]]
    if kind == "text":
        rows = _text(path, unit, **text)
    elif kind in ("csv", "tsv"):
        quoted = kind == "csv" if quoting is None else quoting
        separator = delimiter or ("," if kind == "csv" else "\t")
        rows = _table(path, header, separator, quoted, **text)
    elif kind == "jsonl":
        rows = _jsonl(path, **text)
    elif kind in ("json", "squad"):
        rows = _json(path, kind, **text)
    elif kind == "conll":
        rows = _conll(path, delimiter, **text)
    else:
        from zoo.data.arrow import read_arrow

        rows = read_arrow(path, kind, split, list(fields.values()))
    return islice(_select(path, rows, fields), limit)


def read_parallel(
    source: str | os.PathLike[str], target: str | os.PathLike[str], limit: int | None = None
) -> Iterator[Example]:
    """Read two files of parallel lines as `{"source", "target"}`.

    Raises:
        DataError: when one has more lines than the other.
    """

    def pairs() -> Iterator[Example]:
        with open_text(Path(source)) as left, open_text(Path(target)) as right:
            number = 0
            while True:
                number += 1
                a, b = left.readline(), right.readline()
                if not a and not b:
                    return
                if not a or not b:
                    short, other = (source, target) if not a else (target, source)
                    raise DataError(f"{short}: ends at line {number - 1}; {other} goes on")
                yield {"source": a.rstrip("\r\n"), "target": b.rstrip("\r\n")}

    return islice(pairs(), limit)


def _guess(path: Path) -> str:
    if path.is_dir():
        return "dataset"
    suffixes = [s.lower() for s in path.suffixes if s.lower() not in (".gz", ".gzip")]
    kind = SUFFIXES.get(suffixes[-1] if suffixes else "")
    if kind is None:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        raise ConfigError(
            f"{path}: cannot tell the format from the name; "
            f"give format=, one of: {', '.join(FORMATS)}"
        )
    return kind


def _select(
    path: Path, rows: Iterator[tuple[Any, Example]], fields: Mapping[str, str | int]
) -> Iterator[Example]:
    for where, row in rows:
        if not fields:
            yield row
            continue
        try:
            yield {name: row[column] for name, column in fields.items()}
        except KeyError as error:
            have = ", ".join(map(repr, row))
            raise DataError(f"{path}, {where}: no column {error}; it has {have}") from error


def _text(path: Path, unit: str, **options: str) -> Iterator[tuple[str, Example]]:
    with open_text(path, **options) as stream:
        if unit == "file":
            yield "file", {"text": stream.read().replace("\r\n", "\n")}
            return
        lines: list[str] = []
        number = 0
        for number, line in enumerate(stream, 1):
            line = line.rstrip("\r\n")
            if unit == "line":
                if line.strip():
                    yield f"line {number}", {"text": line}
            elif line.strip():
                lines.append(line)
            elif lines:
                yield f"line {number}", {"text": "\n".join(lines)}
                lines = []
        if lines:
            yield f"line {number}", {"text": "\n".join(lines)}


def _table(
    path: Path, header: bool, delimiter: str, quoted: bool, **options: str
) -> Iterator[tuple[str, Example]]:
    names: list[Any] | None = None
    with open_text(path, **options) as stream:
        rows = _quoted_rows(path, stream, delimiter) if quoted else _plain_rows(stream, delimiter)
        for number, row in rows:
            where = f"line {number}"
            if names is None and header:
                names = row
                if len(set(names)) < len(names):
                    raise DataError(f"{path}, {where}: a column name comes twice: {row}")
                continue
            if names is not None and len(row) != len(names):
                raise DataError(
                    f"{path}, {where}: {len(row)} columns, expected {len(names)}"
                    + (" (quoting=False reads quotes as plain text)" if quoted else "")
                )
            # Without a header rows may differ in length, as in STS-B.
            yield where, dict(zip(names or range(len(row)), row, strict=True))


def _plain_rows(stream: io.TextIOBase, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(stream, 1):
        line = line.rstrip("\r\n")
        if line:
            yield number, line.split(delimiter)


def _quoted_rows(
    path: Path, stream: io.TextIOBase, delimiter: str
) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(2**31 - 1)
    rows = csv.reader(stream, delimiter=delimiter, strict=True)
    try:
        for row in rows:
            if row:
                yield rows.line_num, row
    except csv.Error as error:
        raise DataError(
            f"{path}, line {rows.line_num}: {error}; quoting=False reads quotes as plain text"
        ) from error


def _jsonl(path: Path, **options: str) -> Iterator[tuple[str, Example]]:
    with open_text(path, **options) as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{path}, line {number}: not JSON ({error.msg}, column {error.colno})"
                ) from error
            if not isinstance(value, dict):
                raise DataError(
                    f"{path}, line {number}: a {type(value).__name__}; "
                    "expected one JSON object a line"
                )
            yield f"line {number}", value


def _json(path: Path, kind: str, **options: str) -> Iterator[tuple[str, Example]]:
    with open_text(path, **options) as stream:
        text = stream.read()
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if kind == "json" and error.msg == "Extra data":  # JSON lines under the other name
            yield from _jsonl(path, **options)
            return
        where = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{path}, {where}: not JSON ({error.msg})") from error
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        if kind == "squad" or any("paragraphs" in item for item in value["data"][:1]):
            yield from _squad(path, value["data"])
            return
        value = value["data"]
    if kind == "squad" or not isinstance(value, list):
        what = 'an object with "data"' if kind == "squad" else "a list of objects"
        raise DataError(f"{path}: holds a {type(value).__name__}; expected {what}")
    for number, item in enumerate(value):
        if not isinstance(item, dict):
            raise DataError(f"{path}, item {number}: a {type(item).__name__}; expected an object")
        yield f"item {number}", item


def _squad(path: Path, articles: list[Any]) -> Iterator[tuple[str, Example]]:
    for number, article in enumerate(articles):
        where = f"article {number}"
        try:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    where = f"article {number}, question {question.get('id')!r}"
                    yield (
                        where,
                        {
                            "id": question.get("id"),
                            "title": article.get("title", ""),
                            "question": question["question"],
                            "context": paragraph["context"],
                            "answers": [
                                {"text": a["text"], "answer_start": a["answer_start"]}
                                for a in question.get("answers", [])
                            ],
                        },
                    )
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}, {where}: {error!r} missing; expected SQuAD's form") from error


def _conll(path: Path, delimiter: str | None, **options: str) -> Iterator[tuple[str, Example]]:
    with open_text(path, **options) as stream:
        tokens: list[str] = []
        tags: list[str] = []
        start = 1
        for number, line in enumerate(stream, 1):
            line = line.rstrip("\r\n")
            if not line.strip():
                if tokens:
                    yield f"line {start}", {"tokens": tokens, "tags": tags}
                tokens, tags, start = [], [], number + 1
                continue
            parts = line.split(delimiter) if delimiter else line.split()
            if parts[0] == "-DOCSTART-" or (line.startswith("# ") and not tokens):
                continue
            if len(parts) < 2:
                raise DataError(f"{path}, line {number}: {line!r}; expected a token and a tag")
            tokens.append(parts[0])
            tags.append(parts[-1])
        if tokens:
            yield f"line {start}", {"tokens": tokens, "tags": tags}
