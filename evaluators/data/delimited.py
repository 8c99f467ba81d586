"""Rows of csv and tsv files. Every cell is text, `NA` and `None` too; an empty one is None.

`datasets` and pandas guess types: they read the texts `NA` and `None` as missing, and `2020-01-01`
as a date.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from pathlib import Path
from typing import Any

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.data.table import DataError, Table

DELIMITERS = (",", "\t", ";", "|")
LONGEST_CELL = 2**31 - 1
"""Characters; the default of Python's csv module, 131,072, is less than a book has."""


def read_delimited(path: Path, text: str, usual: str, wanted: Collection[str]) -> Table:
    """The table in a text.

    usual: the delimiter that the ending of the file stands for.

    Raises:
        DataError: its quotation marks or its rows do not fit.
    """
    delimiter = _delimiter(text, usual, wanted)
    rows, literal = _parsed(path, text, delimiter)
    remarks = []
    if delimiter != usual:
        remarks.append(Remark(f"{path.name}: its columns are separated by {delimiter!r}."))
    if literal:
        marks = "each line is read as one row, so quotation marks are part of the text."
        remarks.append(Remark(f"{path.name}: {marks}"))
    names, body = rows[0], rows[1:]
    for number, row in enumerate(body, start=1):
        if len(row) > len(names):
            raise DataError(
                f"{path}: row {number} has more cells than the first line names, with "
                f"{delimiter!r} between them."
            )
    values: dict[str, list[Any]] = {}
    for index, name in enumerate(names):
        values.setdefault(name, [row[index] or None if index < len(row) else None for row in body])
    return Table(tuple(values), values, tuple(remarks))


def _delimiter(text: str, usual: str, wanted: Collection[str]) -> str:
    """The first with which the header names every wanted column, or several where none is wanted;
    else the usual one."""
    header = next((line for line in _lines(text)), "")
    for delimiter in (usual, *DELIMITERS):
        names = next(csv.reader([header.rstrip("\r\n")], delimiter=delimiter), [])
        if set(wanted) <= set(names) and len(names) > (0 if wanted else 1):
            return delimiter
    return usual


def _lines(text: str) -> list[str]:
    return [line for line in io.StringIO(text, newline="") if line.strip()]


def _parsed(path: Path, text: str, delimiter: str) -> tuple[list[list[str]], bool]:
    """The rows, the header first, and whether quotation marks are text.

    They are where each line has the header's number of delimiters, and quotation marks would join
    lines: in a file of tabs always, since files such as GLUE's are written without quoting; in
    another one where they do not come in pairs around cells.
    """
    lines = _lines(text)
    if not lines:
        raise DataError(f"{path} is empty.")
    count = lines[0].count(delimiter)
    one_row_each = count > 0 and all(line.count(delimiter) == count for line in lines)
    try:
        rows = _rows(text, delimiter, csv.QUOTE_MINIMAL)
    except csv.Error as error:
        if one_row_each:
            return _rows(text, delimiter, csv.QUOTE_NONE), True
        raise DataError(f"cannot read {path}: its quotation marks do not fit: {error}.") from None
    if one_row_each and delimiter == "\t" and len(rows) < len(lines):
        return _rows(text, delimiter, csv.QUOTE_NONE), True
    return rows, False


def _rows(text: str, delimiter: str, quoting: Any) -> list[list[str]]:
    csv.field_size_limit(LONGEST_CELL)
    source = io.StringIO(text, newline="")
    reader = csv.reader(source, delimiter=delimiter, quoting=quoting, strict=True)
    try:
        return [row for row in reader if row]
    except csv.Error as error:
        raise csv.Error(f"line {reader.line_num}: {error}") from None
