"""Converts table rows to examples; incomplete rows are counted and dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.data.examples import DataSource, Examples, Form
from paretoformer.evaluators.data.images import image_bytes, read_image_folder
from paretoformer.evaluators.data.reading import (
    is_data_file,
    is_plain_text,
    joined_lines,
    read_columns,
    read_hub,
)
from paretoformer.evaluators.data.table import DataError, Table
from paretoformer.spaces.common.registry import did_you_mean

NOT_TEXTS: dict[type, str] = {list: "a list", dict: "an object", bytes: "bytes"}
LACKING = {"text": "text", "text_pair": "second text", "label": "label"}
"""Key of a row -> its name in messages."""


def read_examples(
    path: str, source: DataSource, form: Form, characters: int
) -> tuple[Examples, list[Remark]]:
    """The rows that have a text and, if labels are used, a label.

    characters: minimum length of a passage of joined lines.

    Raises:
        DataError: the file is missing, unreadable or empty, or lacks a column.
    """
    if form == "ranking" and not source.text_pair:
        raise DataError("queries need passages: name their column as data.text_pair.")
    if form == "image":
        named = {"text": source.image, "label": source.label}
    else:
        named = {"text": source.text, "label": source.label, "text_pair": source.text_pair}
    columns = {key: column for key, column in named.items() if column}
    table = _table(path, source, columns, form, characters)
    for key, column in columns.items():
        if column not in table.values:
            option = "image" if form == "image" and key == "text" else key
            or_none = ', or set data.label = "" if you have no labels' if key == "label" else ""
            raise DataError(
                f"{path} has no column {column!r}.{did_you_mean(column, table.names)} "
                f"It has: {', '.join(filter(None, table.names))}. "
                f"Name yours as data.{option}{or_none}."
            )
    return _usable(path, table, columns, form)


def _table(
    path: str, source: DataSource, columns: Mapping[str, str], form: Form, characters: int
) -> Table:
    if form == "image" and Path(path).is_dir():
        return read_image_folder(path, columns["text"], columns.get("label", ""))
    if not is_data_file(path) and not Path(path).is_file():
        return read_hub(path, columns.values(), source.subset, source.split)
    table = read_columns(path, columns.values(), source.encoding)
    return joined_lines(table, characters) if form == "passage" and is_plain_text(path) else table


def _usable(
    path: str, table: Table, columns: Mapping[str, str], form: Form
) -> tuple[Examples, list[Remark]]:
    cells = [table.values[column] for column in columns.values()]
    names = LACKING | ({"text": "image"} if form == "image" else {})
    rows: list[dict[str, Any]] = []
    dropped: Counter[str] = Counter()
    mended = 0
    for number, values in enumerate(zip(*cells, strict=True), start=1):
        row = _row(path, number, columns, dict(zip(columns, values, strict=True)), form)
        missing = next((names[key] for key in names if key in row and is_missing(row[key])), "")
        if missing:
            dropped[missing] += 1
        else:
            whole = {key: _whole(row[key]) for key in ("text", "text_pair") if key in row}
            mended += any(row[key] != value for key, value in whole.items())
            rows.append(row | whole)
    if not rows:
        wanted = " and ".join(repr(column) for column in columns.values())
        raise DataError(f"{path} has no row with {wanted}.")
    remarks = list(table.remarks)
    if dropped:
        counts = ", ".join(f"{count} without a {what}" for what, count in dropped.items())
        total = len(rows) + dropped.total()
        remarks.append(Remark(f"{Path(path).name}: left out of {total} rows: {counts}."))
    if mended:
        what = "texts with half a character (a lone surrogate), as of an emoji that was cut in two"
        remarks.append(Remark(f"{Path(path).name}: {what}: {mended}. It is read as U+FFFD."))
    examples = Examples(
        tuple(row["text"] for row in rows),
        tuple(str(row.get("text_pair", "")) for row in rows),
        tuple(row.get("label") for row in rows),
    )
    return examples, remarks


def _whole(value: Any) -> Any:
    """A text or words without halves of characters, which no tokenizer takes."""
    if isinstance(value, tuple):
        return tuple(map(_whole, value))
    if not isinstance(value, str) or value.isascii():
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _row(
    path: str, number: int, columns: Mapping[str, str], row: Mapping[str, Any], form: Form
) -> dict[str, Any]:
    """The cells of a row in an example's form; None if missing."""
    if form == "words":
        return _words(path, number, columns, row)
    if form == "image":
        return {**row, "text": image_bytes(path, number, row["text"])}
    texts = {key: value for key, value in row.items() if key != "label"}
    for key, value in texts.items():
        if kind := NOT_TEXTS.get(type(value)):
            raise DataError(
                f"{path}: {columns[key]!r} of row {number} is {kind}, not a text. For chat "
                "messages, apply the chat template first."
            )
    return {**row, **{k: None if is_missing(text) else str(text) for k, text in texts.items()}}


def _words(
    path: str, number: int, columns: Mapping[str, str], row: Mapping[str, Any]
) -> dict[str, Any]:
    """The words of a row and, if used, their labels, as tuples.

    A text without labels may be a string, which is split at spaces.
    """
    words, labels = row["text"], row.get("label")
    if isinstance(words, str) and "label" not in row:
        words = words.split()
    if words is not None and not (
        isinstance(words, list) and all(isinstance(word, str) for word in words)
    ):
        raise DataError(
            f"{path}: {columns['text']!r} of row {number} is no list of words, with a label for "
            "each. A csv cannot hold lists: use jsonl, Parquet or CoNLL, such as rows.conll."
        )
    cells = {**row, "text": tuple(words) if words else None}
    if not words or "label" not in row:
        return cells
    if labels is not None and not isinstance(labels, list):
        raise DataError(f"{path}: {columns['label']!r} of row {number} is no list of labels.")
    if labels and len(labels) != len(words):
        raise DataError(f"{path}: row {number} has {len(words)} words, but {len(labels)} labels.")
    return {**cells, "label": tuple(labels) if labels else None}


def is_missing(value: Any) -> bool:
    """None, NaN, or only whitespace."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())
