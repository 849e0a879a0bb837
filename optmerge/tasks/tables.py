"""Rows of local files: csv, tsv, json, jsonl and parquet.

Text is read with the standard library, not with `datasets`: importing that takes over a second, and it keeps copies in
a cache; reading a problem set here takes milliseconds.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from optmerge.errors import UsageError

Row = dict[str, Any]

ENDINGS = (".csv", ".json", ".jsonl", ".parquet", ".tsv")


def read_table(path: Path, columns: Sequence[str] | None = None) -> list[Row]:
    """The rows of a file, each by column name.

    Args:
        path: A file whose ending says what it is.
        columns: Names for the columns of a csv or tsv without header; not used for files that name their own.

    Raises:
        UsageError: If there is no such file, its ending is unknown, or it is not what its ending says.
    """
    if not path.is_file():
        raise UsageError(f"no problem file at {path}")
    if path.suffix not in ENDINGS:
        raise UsageError(f"{path}: unknown file ending {path.suffix!r}; known are {', '.join(ENDINGS)}")
    try:
        if path.suffix == ".parquet":
            return _read_parquet(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(_read_text(file, path.suffix, columns))
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read as {path.suffix[1:]}: {error}") from error
    if not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path}: every row must be an object with named columns")
    return rows


def _read_text(file: TextIO, ending: str, columns: Sequence[str] | None) -> Iterator[Row]:
    match ending:
        case ".csv":
            yield from csv.DictReader(file, fieldnames=columns)
        case ".tsv":  # a quotation mark in a tsv is a character like any other
            yield from csv.DictReader(file, fieldnames=columns, delimiter="\t", quoting=csv.QUOTE_NONE)
        case ".jsonl":
            yield from (json.loads(line) for line in file if line.strip())
        case ".json":
            content = json.load(file)
            yield from content if isinstance(content, list) else [content]


def _read_parquet(path: Path) -> list[Row]:
    from pyarrow.parquet import read_table as read_parquet

    rows: list[Row] = read_parquet(path).to_pylist()
    return rows
