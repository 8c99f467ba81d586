"""Rows of csv and tsv files. Every cell is text, even `NA` and `None`; an empty cell is None.

`datasets` and pandas guess types: they read `NA` and `None` as missing, and `2020-01-01` as a date.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.data.table import DataError, Table

DELIMITERS = (",", "\t", ";", "|")
ESCAPED = '\\"'
SEPARATOR = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)
"""A first line with which Excel names the delimiter."""
LONGEST_CELL = 2**31 - 1
"""Characters; the csv module's default, 131,072, is less than a book."""


def read_delimited(path: Path, text: str, usual: str, wanted: Collection[str]) -> Table:
    """Parse a text as a table; DataError if quotation marks or rows are inconsistent.

    usual: the delimiter that the file's ending implies.
    """
    named = SEPARATOR.match(text)
    text = text[named.end() :] if named else text
    delimiter = named[1] if named else _delimiter(text, usual, wanted)
    remarks = []
    rows = _escaped(text, delimiter)
    if rows:
        remarks.append(Remark(f"{path.name}: {ESCAPED} is a quotation mark, as Spark writes it."))
        literal = False
    else:
        rows, literal = _parsed(path, text, delimiter)
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
    """The first delimiter with which the header has every wanted column, or several columns if none
    is wanted; else the usual one."""
    header = next((line for line in _lines(text)), "")
    for delimiter in (usual, *DELIMITERS):
        names = next(csv.reader([header.rstrip("\r\n")], delimiter=delimiter), [])
        if set(wanted) <= set(names) and len(names) > (0 if wanted else 1):
            return delimiter
    return usual


def _escaped(text: str, delimiter: str) -> list[list[str]]:
    """The rows of a text with quotation marks behind backslashes; empty if it is no such text: if
    rows would have other numbers of cells than the header, or it is well-formed as it is."""
    if ESCAPED not in text:
        return []
    try:
        rows = _rows(text.replace(ESCAPED, '""'), delimiter, csv.QUOTE_MINIMAL)
    except csv.Error:
        return []
    if any(len(row) != len(rows[0]) for row in rows):
        return []
    try:
        usual = _rows(text, delimiter, csv.QUOTE_MINIMAL)
    except csv.Error:
        return rows
    return [] if all(len(row) == len(usual[0]) for row in usual) else rows


def _lines(text: str) -> list[str]:
    return [line for line in io.StringIO(text, newline="") if line.strip()]


def _parsed(path: Path, text: str, delimiter: str) -> tuple[list[list[str]], bool]:
    """The rows, header first, and whether quotation marks are literal text.

    They are literal if every line has the header's number of delimiters and quoting would join
    lines: always in tab-separated files, which are often written without quoting (GLUE); in others
    only if the marks are not in pairs around cells.
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
