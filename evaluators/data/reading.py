"""Columns of a data file, as they stand in it.

Every cell of a csv is text, `NA` and `None` too. What has to be guessed, such as a delimiter or
whether quotation marks are part of the text, becomes a remark.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from paretoformer.evaluators.common.remark import Remark
from paretoformer.spaces.common.malformed import one_line

DELIMITERS = (",", "\t", ";", "|")
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
"""The first bytes of a file -> the encoding that they stand for."""


class DataError(ValueError):
    """The data cannot be used as it is; the message says what to change."""


Wanted = Collection[str]
"""Names of columns."""


@dataclass(frozen=True)
class ClassLabel:
    """A class that the file gives as a number, and the name that it has there."""

    number: int
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Columns:
    """names: of every column. values: of the wanted ones that exist, one a row; None: no value."""

    names: tuple[str, ...]
    values: Mapping[str, Sequence[Any]]
    remarks: tuple[Remark, ...] = ()

    @classmethod
    def of(
        cls, every: Mapping[str, Sequence[Any]], wanted: Wanted, remarks: Sequence[Remark] = ()
    ) -> Columns:
        values = {name: each for name, each in every.items() if name in wanted}
        return cls(tuple(every), values, tuple(remarks))


Reader = Callable[[Path, Wanted, str], Columns]


def is_data_file(path: str) -> bool:
    """Whether a path has the ending of a file that can be read."""
    return _ending(path) in READERS


def is_plain_text(path: str) -> bool:
    """Whether a file has no columns: each of its lines is a text."""
    return _ending(path) == ".txt"


def joined_lines(table: Columns, characters: int) -> Columns:
    """Lines put together to passages of so many characters or more; the last may be shorter."""
    joined = {}
    for name, lines in table.values.items():
        passages: list[list[str]] = [[]]
        for line in lines:
            if sum(map(len, passages[-1])) >= characters:
                passages.append([])
            passages[-1].append(line)
        joined[name] = ["\n".join(each) for each in passages if each]
    counts = {name: (len(table.values[name]), len(each)) for name, each in joined.items()}
    said = (
        Remark(f"{lines} lines of {name!r} are joined to {passages} passages.")
        for name, (lines, passages) in counts.items()
        if lines != passages
    )
    return replace(table, values=joined, remarks=(*table.remarks, *said))


def read_columns(path: str, wanted: Wanted, encoding: str) -> Columns:
    """The wanted columns of a file, and the names of all.

    Raises:
        DataError: it is missing, empty or unreadable.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"no data file {path}.")
    if _ending(path) not in READERS:
        endings = ", ".join(READERS)
        raise DataError(
            f"cannot read {path}: use a file that ends in {endings}, or in those + .gz."
        )
    if file.stat().st_size == 0:
        raise DataError(f"{path} is empty.")
    try:
        return READERS[_ending(path)](file, wanted, encoding)
    except DataError:
        raise
    except Exception as error:  # the readers raise what their parsers raise
        raise DataError(f"cannot read {path}: {reason(error)}") from error


def read_hub(name: str, wanted: Wanted, subset: str, split: str) -> Columns:
    """The same of a data set of the Hub, or of a folder.

    Raises:
        DataError: it cannot be had.
    """
    import datasets  # slow to import, and only a study of a Hub data set needs it

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # what fails is raised, and said once
    try:
        table = datasets.load_dataset(name, subset or None, split=split)
    except Exception as error:
        raise DataError(f"cannot read {name}: {reason(error)}") from error
    for column, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            table = table.cast_column(column, datasets.Image(decode=False))
    values = {column: list(table[column]) for column in table.column_names if column in wanted}
    return Columns(tuple(table.column_names), _with_names(values, table.features))


def read_image_folder(folder: str, image: str, label: str) -> Columns:
    """The images under a folder, labelled by the name of the folder that each lies in.

    image, label: what the two columns are called.

    Raises:
        DataError: there is none.
    """
    top = Path(folder)
    every_file = sorted(path for path in top.rglob("*") if path.is_file())
    paths = [path for path in every_file if path.suffix.lower() in IMAGES]
    if not paths:
        raise DataError(f"{folder} holds no image ({', '.join(IMAGES)}).")
    labels = [None if path.parent == top else path.parent.name for path in paths]
    every: dict[str, Sequence[Any]] = {image: list(map(str, paths)), label or "label": labels}
    remarks = []
    if label:
        remarks.append(Remark(f"{top.name}: an image is labelled by the name of its folder."))
    if others := len(every_file) - len(paths):
        remarks.append(Remark(f"{top.name}: {others} files that are no images are not read."))
    return Columns.of(every, (image, label), remarks)


def image_bytes(source: str, row: int, value: Any) -> bytes | None:
    """The file of an image, whose cell holds its bytes, its path, or both as `datasets` keeps them.

    A path is relative to the data file `source`.

    Raises:
        DataError: it is no image that can be opened.
    """
    try:
        from PIL import Image
    except ImportError:
        raise DataError("images need Pillow: pip install 'paretoformer[images]'.") from None
    data = value.get("bytes") if isinstance(value, dict) else value
    if data is None and isinstance(value, dict):
        data = value.get("path")
    try:
        if isinstance(data, str):
            data = (Path(source).parent / data).read_bytes() if data.strip() else None
        if data is None:
            return None
        with Image.open(io.BytesIO(data)) as image:
            image.load()  # a file that was cut off has a good head
    except Exception as error:  # Pillow raises what its decoders raise
        shown = value if isinstance(value, str) else "its cell"
        unknown = type(error).__name__ == "UnidentifiedImageError"  # whose text names an object
        why = "no format that Pillow knows" if unknown else reason(error)
        raise DataError(
            f"{source}: row {row} holds no image that can be opened ({shown}): {why}"
        ) from None
    return bytes(data)


def reason(error: BaseException) -> str:
    """The innermost cause in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error, 300, with_type=True)


def _ending(path: str) -> str:
    """`.csv` of `rows.csv` and of `ROWS.CSV.gz`; `.conll` of `rows.conll.txt`."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    if suffixes[-2:] == [".conll", ".txt"]:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _bytes(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()


def _text(path: Path, encoding: str) -> str:
    """Raises DataError, naming the line, where it is in another encoding."""
    data = _bytes(path)
    marked = next((name for mark, name in MARKS.items() if data.startswith(mark)), encoding)
    try:
        return data.decode(marked)
    except LookupError:
        raise DataError(f"data.encoding: Python knows no encoding {encoding!r}.") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} is not {marked}: byte 0x{data[error.start]:02x} in line {line}. Name its "
            'encoding, such as data.encoding = "latin-1", or save it as UTF-8.'
        ) from None


def _read_delimited(usual: str) -> Reader:
    def read(path: Path, wanted: Wanted, encoding: str) -> Columns:
        text = _text(path, encoding)
        delimiter = _delimiter(text, usual, wanted)
        remarks = []
        if delimiter != usual:
            remarks.append(Remark(f"{path.name}: its columns are separated by {delimiter!r}."))
        table, literal = _parsed(path, text, delimiter)
        if literal:
            marks = "each line is read as one row, so quotation marks are part of the text."
            remarks.append(Remark(f"{path.name}: {marks}"))
        return Columns.of(table, wanted, remarks)

    return read


def _delimiter(text: str, usual: str, wanted: Wanted) -> str:
    """The first one with which the first line names every wanted column, or several where none is
    wanted; else the usual one."""
    line = next((line for line in io.StringIO(text) if line.strip()), "")
    for each in (usual, *DELIMITERS):
        names = _cells(line, each)
        if (wanted and set(wanted) <= set(names)) or (not wanted and len(names) > 1):
            return each
    return usual


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter), [])


def _parsed(path: Path, text: str, delimiter: str) -> tuple[dict[str, list[Any]], bool]:
    """The columns, and whether quotation marks are text.

    They are where each line has the header's number of delimiters, and quotation marks would join
    lines: in a file of tabs always, since files such as GLUE's are written without quoting; in
    another one where they do not come in pairs around cells.
    """
    lines = [line for line in text.split("\n") if line.strip()] if '"' in text else []
    columns = lines[0].count(delimiter) if lines else 0
    if columns and all(line.count(delimiter) == columns for line in lines):
        rows = _quoted_rows(text, delimiter)
        if rows is None or (delimiter == "\t" and rows < len(lines)):
            return _frame(path, text, delimiter, csv.QUOTE_NONE), True
    return _frame(path, text, delimiter, csv.QUOTE_MINIMAL), False


def _quoted_rows(text: str, delimiter: str) -> int | None:
    """Rows, the header among them, if quotation marks enclose cells; None where they cannot."""
    try:
        return sum(map(bool, csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)))
    except csv.Error:
        return None


def _frame(path: Path, text: str, delimiter: str, quoting: Any) -> dict[str, list[Any]]:
    """Every cell as text: a type that is guessed may change in the middle of a file."""
    import pandas as pd

    frame = pd.read_csv(
        io.StringIO(text), sep=delimiter, dtype=str, keep_default_na=False, quoting=quoting
    )
    if not isinstance(frame.index, pd.RangeIndex):
        raise DataError(
            f"{path}: its rows have more cells than the first line names, with {delimiter!r} "
            "between them."
        )
    values = {str(name): frame[name].tolist() for name in frame.columns}
    return {name: [_cell(value) for value in column] for name, column in values.items()}


def _cell(value: Any) -> str | None:
    """None for an empty one, and for one that a short row lacks."""
    return value if isinstance(value, str) and value else None


def _read_json(path: Path, wanted: Wanted, encoding: str) -> Columns:
    """One object a line, a list of objects, or an object that holds such a list."""
    text = _text(path, encoding)
    if text.lstrip().startswith("["):
        return Columns.of(_columns_of(path, json.loads(text)), wanted)
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        return Columns.of(_columns_of(path, list(_json_lines(path, text))), wanted)
    lists = [value for value in whole.values() if _is_rows(value)] if _is_object(whole) else []
    return Columns.of(_columns_of(path, lists[0] if len(lists) == 1 else [whole]), wanted)


def _json_lines(path: Path, text: str) -> Iterator[Any]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}: line {number} is not JSON: {error.msg}.") from None


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_object, value))


def _columns_of(path: Path, rows: Sequence[Any]) -> dict[str, list[Any]]:
    odd = next((i for i, row in enumerate(rows, start=1) if not _is_object(row)), None)
    if odd is not None:
        raise DataError(f"{path}: row {odd} is no object with a value for each column.")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _read_parquet(path: Path, wanted: Wanted, encoding: str) -> Columns:
    import datasets
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    table = pq.read_table(path, columns=[name for name in schema.names if name in wanted])
    values = {name: table.column(name).to_pylist() for name in table.column_names}
    features = datasets.Features.from_arrow_schema(table.schema)
    return Columns(tuple(schema.names), _with_names(values, features))


def _with_names(values: dict[str, list[Any]], features: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Numbers of named classes with their names; also in lists, of a class for each word."""
    named = {name: _class_names(feature) for name, feature in features.items()}
    return {
        column: [_named(v, named[column]) for v in each] if named.get(column) else each
        for column, each in values.items()
    }


def _class_names(feature: Any) -> Sequence[str]:
    own = getattr(feature, "names", None) or getattr(
        getattr(feature, "feature", None), "names", None
    )
    return own or ()


def _named(value: Any, names: Sequence[str]) -> Any:
    """-1 stands for no label in data sets of named classes."""
    if isinstance(value, list):
        return [_named(each, names) for each in value]
    known = isinstance(value, int) and 0 <= value < len(names)
    return ClassLabel(value, str(names[value])) if known else None if value == -1 else value


def _read_conll(path: Path, wanted: Wanted, encoding: str) -> Columns:
    """A word and its label on each line, an empty line behind each sentence.

    What stands between the first and the last column is not read, nor lines of `-DOCSTART-`, which
    separate documents. Columns are separated by tabs, or else by spaces.
    """
    columns: dict[str, list[Any]] = {"text": [], "label": []}
    sentence: list[list[str]] = []
    widest = 0
    for number, line in enumerate([*_text(path, encoding).split("\n"), ""], start=1):
        if line.strip():
            cells = line.strip().split("\t" if "\t" in line.strip() else None)
            if len(cells) < 2:
                raise DataError(f"{path}: line {number} has no label behind the word {cells[0]!r}.")
            if cells[0] != "-DOCSTART-":
                sentence.append(cells)
                widest = max(widest, len(cells))
        elif sentence:
            columns["text"].append([cells[0] for cells in sentence])
            columns["label"].append([cells[-1] for cells in sentence])
            sentence = []
    remarks = []
    if widest > 2:
        remarks.append(
            Remark(f"{path.name}: of {widest} columns, the first is the word, the last its label.")
        )
    return Columns.of(columns, wanted, remarks)


def _read_lines(path: Path, wanted: Wanted, encoding: str) -> Columns:
    lines = (line.rstrip("\r") for line in _text(path, encoding).split("\n"))
    return Columns.of({"text": [line for line in lines if line.strip()]}, wanted)


READERS: dict[str, Reader] = {
    ".csv": _read_delimited(","),
    ".tsv": _read_delimited("\t"),
    ".jsonl": _read_json,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".txt": _read_lines,
    ".conll": _read_conll,
}
"""Ending of a file -> what reads it."""
