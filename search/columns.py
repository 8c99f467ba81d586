"""The columns of a data file: their names, and which are text and label, from its head alone."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from paretoformer.evaluators.data import READERS
from paretoformer.search.errors import StudyError
from paretoformer.spaces.suggestions import did_you_mean

PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "passage"),
    ("text1", "text2"),
    ("text_a", "text_b"),
)
TEXTS = (
    *("text", "sentence", "content", "review", "comment", "tweet", "body", "message"),
    *("document", "description", "question", "query", "title"),
)
LABELS = (
    *("label", "labels", "target", "class", "category", "sentiment", "intent", "topic"),
    *("emotion", "stars", "rating", "score", "y"),
)
NUMBERS = ("", "id", "idx", "index", "unnamed: 0")
"""What columns that only number the rows are called."""
MOST_ROWS = 10_000
"""No more are counted: the splits are full by then."""


@dataclass(frozen=True)
class Columns:
    """The names of a study's columns; "" where there is none."""

    text: str
    text_pair: str = ""
    label: str = ""


def is_file(path: str) -> bool:
    """Whether this is a data file, here or missing, rather than the id of a data set."""
    return Path(path).is_file() or Path(path).suffix.lower() in READERS


def column_names(path: str) -> list[str]:
    """Those of a data file.

    Raises:
        StudyError: it is missing, empty, or cannot be read.
    """
    file = Path(path)
    if not file.is_file():
        raise StudyError(f"no data file {path}.")
    kind = READERS.get(file.suffix.lower())
    if kind is None:
        raise StudyError(f"cannot read {path}: use a file that ends in {', '.join(READERS)}.")
    try:
        found = {"csv": _of_csv, "json": _of_json, "parquet": _of_parquet, "text": _of_text}[kind](
            file
        )
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise StudyError(f"cannot read the head of {path}: {reason}.") from None
    if not found:
        raise StudyError(f"{path} is empty.")
    return found


def _of_csv(file: Path) -> list[str]:
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    with file.open(encoding="utf-8-sig", newline="") as lines:
        return next(csv.reader(lines, delimiter=delimiter), [])


def _of_json(file: Path) -> list[str]:
    """Of the first object: a line of its own, or the first of a list."""
    with file.open(encoding="utf-8-sig") as lines:
        first = lines.readline().strip()
        if first.startswith("["):
            first = json.dumps(next(iter(json.loads(first + lines.read())), {}))
    if not first:
        return []
    row = json.loads(first)
    if not isinstance(row, dict):
        raise ValueError("its first row is no object with names")
    return list(row)


def _of_parquet(file: Path) -> list[str]:
    return list(pq.read_schema(file).names)


def _of_text(file: Path) -> list[str]:
    return ["text"] if file.stat().st_size else []


def count_rows(path: str) -> int:
    """About how many rows a data file has; no more than `MOST_ROWS` are counted."""
    if Path(path).suffix.lower() == ".parquet":
        return int(min(pq.read_metadata(path).num_rows, MOST_ROWS))
    with Path(path).open("rb") as lines:
        head = lines.read(1)
        if head == b"[":  # a list, most often in one line
            lines.seek(0)
            return min(len(json.load(lines)), MOST_ROWS)
        return sum(1 for _ in islice(lines, MOST_ROWS))


def columns_of(
    path: str, names: Sequence[str], text: str | None, text_pair: str | None, label: str | None
) -> Columns:
    """Those that were given, checked; the others guessed from their names.

    Raises:
        StudyError: a given one is not there, or one cannot be guessed.
    """
    for key, given in (("text", text), ("text-pair", text_pair), ("label", label)):
        if given and given not in names:
            raise StudyError(
                f"{path} has no column {given!r}.{did_you_mean(given, names)} "
                f"It has: {', '.join(names)}. Name yours as --{key}."
            )
    pair = None if text else _first_pair(names)
    text = text or (pair[0] if pair else _text(path, names, label))
    second = (pair[1] if pair else "") if text_pair is None else text_pair
    return Columns(text, second, _label(path, names, {text, second}) if label is None else label)


def _first_pair(names: Sequence[str]) -> tuple[str, str] | None:
    known = {name.lower(): name for name in names}
    return next(((known[a], known[b]) for a, b in PAIRS if a in known and b in known), None)


def _text(path: str, names: Sequence[str], label: str | None) -> str:
    left = [each for each in _content(names) if each.lower() not in LABELS and each != label]
    return _known(names, TEXTS) or _only(left) or _unclear(path, names, "text")


def _label(path: str, names: Sequence[str], texts: Iterable[str]) -> str:
    """Empty where there is no other column: then the dense model sets the answers."""
    left = [each for each in _content(names) if each not in texts]
    if not left:
        return ""
    return _known(left, LABELS) or _only(left) or _unclear(path, names, "label")


def _content(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.lower() not in NUMBERS]


def _known(names: Sequence[str], usual: Sequence[str]) -> str:
    by_name = {name.lower(): name for name in names}
    return next((by_name[each] for each in usual if each in by_name), "")


def _only(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ""


def _unclear(path: str, names: Sequence[str], key: str) -> NoReturn:
    raise StudyError(
        f"cannot tell which column of {path} is the {key}. It has: {', '.join(names)}. "
        f"Name yours as --{key}."
    )
