"""Reads data files and Hub data sets as tables.

`datasets` reads Parquet metadata and the Hub. Local csv and json files are parsed here, because
`datasets` (5.2) guesses types, so that `NA` and `None` are missing and `2020-01-01` is a date; does
not name a damaged line; takes a path with brackets as a pattern; and copies every file into its
cache.
"""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.data.beir import is_beir, read_beir
from paretoformer.evaluators.data.delimited import read_delimited
from paretoformer.evaluators.data.pointers import is_pointer
from paretoformer.evaluators.data.table import ClassLabel, DataError, Table, reason

MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
"""First bytes of a file -> its encoding."""

Wanted = Collection[str]
"""Column names."""
Reader = Callable[[Path, Wanted, str], Table]
"""(file, wanted columns, encoding) -> its table, possibly with more columns."""


def is_data_file(path: str) -> bool:
    """Whether the ending of a path is supported, or its folder is one of BEIR's."""
    return _ending(path) in READERS or is_beir(path)


def is_plain_text(path: str) -> bool:
    """Whether a file has no columns: each line is a text."""
    return _ending(path) == ".txt"


def read_columns(path: str, wanted: Wanted, encoding: str) -> Table:
    """Wanted columns of a file, and the names of all; DataError if missing, empty or unreadable."""
    if is_beir(path):
        return read_beir(path).only(wanted)
    files = _parts(Path(path))
    if not files:
        raise DataError(f"no data file {path}.")
    if _ending(path) not in READERS:
        endings = ", ".join(READERS)
        raise DataError(
            f"cannot read {path}: use a file that ends in {endings}, or in those + .gz."
        )
    if pointers := [file.name for file in files if is_pointer(file)]:
        raise DataError(
            f"{pointers[0]} is a pointer of Git LFS, not the file itself: run `git lfs pull` in "
            "its folder."
        )
    filled = [file for file in files if file.stat().st_size]
    if not filled:
        raise DataError(f"{path} is empty.")
    table = _joined([_read(file, wanted, encoding) for file in filled])
    if len(files) == 1:
        return table
    remark = Remark(f"{Path(path).name}: its {len(files)} parts are read as one file.")
    return replace(table, remarks=(*table.remarks, remark))


def _parts(path: Path) -> list[Path]:
    """The file; for a folder with the name of a file, as Spark writes it, its parts."""
    if not path.is_dir():
        return [path] if path.is_file() else []
    files = (file for file in path.rglob("*") if file.is_file() and _ending(str(file)) in READERS)
    return sorted(file for file in files if not file.name.startswith(("_", ".")))


def _read(file: Path, wanted: Wanted, encoding: str) -> Table:
    try:
        return READERS[_ending(str(file))](file, wanted, encoding).only(wanted)
    except DataError:
        raise
    except Exception as error:  # parsers raise various errors
        raise DataError(f"cannot read {file}: {reason(error)}") from error


def _joined(tables: Sequence[Table]) -> Table:
    """The rows of tables with equal columns; DataError if they differ."""
    first, remarks = tables[0], dict[Remark, None]()
    values: dict[str, list[Any]] = {name: [] for name in first.values}
    for table in tables:
        if set(table.names) != set(first.names):
            raise DataError(
                f"its parts have other columns: {', '.join(first.names)} and "
                f"{', '.join(table.names)}."
            )
        remarks |= dict.fromkeys(table.remarks)
        for name, cells in values.items():
            cells += table.values[name]
    return replace(first, values=values, remarks=tuple(remarks))


def read_hub(name: str, wanted: Wanted, subset: str, split: str) -> Table:
    """Wanted columns of a Hub data set or a folder; DataError if it cannot be loaded."""
    import datasets  # slow to import, and only Hub data sets need it

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # errors are raised
    try:
        table = datasets.load_dataset(name, subset or None, split=split)
    except Exception as error:
        raise DataError(f"cannot read {name}: {reason(error)}") from error
    for column, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            table = table.cast_column(column, datasets.Image(decode=False))
    values = {column: list(table[column]) for column in table.column_names if column in wanted}
    return Table(tuple(table.column_names), _with_class_names(values, table.features))


def joined_lines(table: Table, characters: int) -> Table:
    """Lines joined to passages of at least `characters`; the last may be shorter."""
    passages: list[str] = []
    lines = table.values.get("text", ())
    for line in lines:
        if not passages or len(passages[-1].replace("\n", "")) >= characters:
            passages.append(line)
        else:
            passages[-1] += f"\n{line}"
    if len(passages) == len(lines):
        return table
    remark = Remark(f"{len(lines)} lines of 'text' are joined to {len(passages)} passages.")
    return replace(table, values={"text": passages}, remarks=(*table.remarks, remark))


def _ending(path: str) -> str:
    """`.csv` of `rows.csv` and of `ROWS.CSV.gz`; `.conll` of `rows.conll.txt`."""
    name = Path(path).name.lower().removesuffix(".gz")
    return Path(name.replace(".conll.txt", ".conll")).suffix


def _decoded(path: Path, encoding: str) -> str:
    """The text of a file. Raises DataError with the line number if the encoding is wrong."""
    data = path.read_bytes()
    if path.suffix.lower() == ".gz":
        data = gzip.decompress(data)
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


def _read_delimited(usual: str, path: Path, wanted: Wanted, encoding: str) -> Table:
    return read_delimited(path, _decoded(path, encoding), usual, wanted)


def _read_json(path: Path, wanted: Wanted, encoding: str) -> Table:
    """One object per line, a list of objects, or an object that holds such a list, or columns."""
    text = _decoded(path, encoding)
    if text.lstrip().startswith("["):
        return _table_of(path, json.loads(text))
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        return _table_of(path, list(_json_lines(path, text)))
    lists = [value for value in whole.values() if _is_rows(value)] if _is_object(whole) else []
    if len(lists) != 1 and (columns := _columns(whole)):
        return Table(tuple(columns), columns)
    return _table_of(path, lists[0] if len(lists) == 1 else [whole])


def _columns(whole: Any) -> dict[str, list[Any]]:
    """The columns of an object that holds them as lists, or as objects of equal keys, as pandas
    writes them; empty if it is something else."""
    if not _is_object(whole) or not whole:
        return {}
    values = list(whole.values())
    if all(map(_is_object, values)) and all(each.keys() == values[0].keys() for each in values):
        return {name: [each[row] for row in values[0]] for name, each in whole.items()}
    is_columns = all(isinstance(each, list) and len(each) == len(values[0]) for each in values)
    return whole if is_columns else {}


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


def _table_of(path: Path, rows: Sequence[Any]) -> Table:
    for number, row in enumerate(rows, start=1):
        if not _is_object(row):
            raise DataError(f"{path}: row {number} is no object with a value for each column.")
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    return Table(names, {name: [row.get(name) for row in rows] for name in names})


def _read_parquet(path: Path, wanted: Wanted, encoding: str) -> Table:
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    table = pq.read_table(path, columns=[name for name in schema.names if name in wanted])
    values = {name: table.column(name).to_pylist() for name in table.column_names}
    if b"huggingface" in (schema.metadata or {}):
        import datasets  # slow to import, and only its own files have class names

        values = _with_class_names(values, datasets.Features.from_arrow_schema(table.schema))
    return Table(tuple(schema.names), values)


def _with_class_names(
    values: Mapping[str, list[Any]], features: Mapping[str, Any]
) -> dict[str, list[Any]]:
    """Class numbers with their names; also in lists with one class per word."""
    named = {}
    for column, cells in values.items():
        feature = features.get(column)
        names = getattr(getattr(feature, "feature", feature), "names", None) or ()
        named[column] = [_class_label(cell, names) for cell in cells] if names else cells
    return named


def _class_label(value: Any, names: Sequence[str]) -> Any:
    """Class numbers are named; -1 means no label."""
    if isinstance(value, list):
        return [_class_label(number, names) for number in value]
    known = isinstance(value, int) and 0 <= value < len(names)
    return ClassLabel(value, str(names[value])) if known else None if value == -1 else value


def _read_conll(path: Path, wanted: Wanted, encoding: str) -> Table:
    """One word and its label per line; sentences end with an empty line.

    Columns between the first and the last, `-DOCSTART-` lines between documents, and comments
    before a sentence are ignored.
    Columns are separated by tabs, else by spaces.
    """
    sentences: list[list[list[str]]] = [[]]
    for number, line in enumerate(_decoded(path, encoding).split("\n"), start=1):
        cells = line.strip().split("\t" if "\t" in line.strip() else None)
        if not cells:
            sentences.append([])
        elif cells[0] != "-DOCSTART-":
            if len(cells) == 1:
                raise DataError(f"{path}: line {number} has no label behind the word {cells[0]!r}.")
            sentences[-1].append(cells)
    sentences = [sentence for sentence in sentences if sentence]
    kept = [_without_comment(sentence) for sentence in sentences]
    words = [[cells[0] for cells in sentence] for sentence in kept]
    labels = [[cells[-1] for cells in sentence] for sentence in kept]
    columns = max((len(cells) for sentence in kept for cells in sentence), default=0)
    remarks = []
    if columns > 2:
        note = f"{path.name}: of {columns} columns, the first is the word, the last its label."
        remarks.append(Remark(note))
    if comments := sum(map(len, sentences)) - sum(map(len, kept)):
        remarks.append(Remark(f"{path.name}: comments before sentences, left out: {comments}."))
    return Table(("text", "label"), {"text": words, "label": labels}, tuple(remarks))


def _without_comment(lines: list[list[str]]) -> list[list[str]]:
    """A sentence without a comment before it: `# id ...`, with other columns than its words."""
    is_comment = len(lines) > 1 and len(lines[0]) != len(lines[1]) and lines[0][0].split()[0] == "#"
    return lines[1:] if is_comment else lines


def _read_lines(path: Path, wanted: Wanted, encoding: str) -> Table:
    lines = (line.rstrip("\r") for line in _decoded(path, encoding).split("\n"))
    return Table(("text",), {"text": [line for line in lines if line.strip()]})


READERS: dict[str, Reader] = {
    ".csv": partial(_read_delimited, ","),
    ".tsv": partial(_read_delimited, "\t"),
    ".jsonl": _read_json,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".txt": _read_lines,
    ".conll": _read_conll,
}
"""File ending -> reader."""
