"""The columns of a data file: their names, and guesses of the text and the label."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import NoReturn

from paretoformer.evaluators.data.reading import read_columns
from paretoformer.evaluators.data.rows import is_missing
from paretoformer.evaluators.data.table import DataError
from paretoformer.search.records.errors import StudyError
from paretoformer.spaces.common.registry import did_you_mean

PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "passage"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("sentence_a", "sentence_b"),
    ("query", "document"),
    ("question", "answer"),
    ("text", "text_pair"),
)
TEXTS = (
    *("text", "sentence", "content", "review", "comment", "tweet", "body", "message"),
    *("document", "description", "question", "query", "title", "tokens", "words"),
)
LABELS = (
    *("label", "labels", "target", "class", "category", "sentiment", "intent", "topic"),
    *("emotion", "stars", "rating", "score", "y", "ner_tags", "tags"),
)
IMAGES = ("image", "img", "picture", "photo", "file", "path")
NUMBERS = ("", "id", "idx", "index", "unnamed: 0", "__index_level_0__")
"""Names of columns that only number the rows."""


@dataclass(frozen=True)
class Columns:
    """The names of a study's columns; "" if there is none."""

    text: str
    text_pair: str = ""
    label: str = ""

    def __str__(self) -> str:
        pair = f", text_pair {self.text_pair!r}" if self.text_pair else ""
        return f"text {self.text!r}{pair}, label {self.label!r}"


@dataclass(frozen=True)
class Head:
    """The column names of a data file, and its number of rows."""

    names: tuple[str, ...]
    rows: int


def read_head(path: str, encoding: str = "utf-8") -> Head:
    """The head of a data file.

    Raises:
        StudyError: it is missing, empty, or cannot be read.
    """
    try:
        names = read_columns(path, (), encoding).names
        if not names:
            raise StudyError(f"{path} is empty.")
        values = read_columns(path, names[:1], encoding).values
    except DataError as error:
        raise StudyError(
            str(error).replace("data.encoding = ", "paretoformer init MODEL DATA --encoding ")
        ) from None
    return Head(names, max(map(len, values.values()), default=0))


def usable_rows(path: str, columns: Columns, encoding: str = "utf-8") -> int:
    """Rows of a data file that have a text and, where there is such a column, a second text and a
    label; rows of equal texts count once. StudyError as `read_head`."""
    texts = list(filter(None, (columns.text, columns.text_pair)))
    names = [*texts, *filter(None, (columns.label,))]
    try:
        values = read_columns(path, names, encoding).values
    except DataError as error:
        raise StudyError(str(error)) from None
    rows = zip(*(values[name] for name in names), strict=True)
    return len({str(row[: len(texts)]) for row in rows if not any(map(is_missing, row))})


def columns_of(
    path: str,
    names: Sequence[str],
    text: str | None,
    text_pair: str | None,
    label: str | None,
    *,
    images: bool = False,
    scores_pairs: bool = False,
) -> Columns:
    """The given columns, checked; the others are guessed from the names.

    images: a column of images takes the place of the text. scores_pairs: labels are scores of pairs
    of texts: without a second text, none is guessed.

    Raises:
        StudyError: a given column is missing, or one cannot be guessed.
    """
    for key, given in (("text", text), ("text-pair", text_pair), ("label", label)):
        if given and given not in names:
            raise StudyError(
                f"{path} has no column {given!r}.{did_you_mean(given, names)} "
                f"It has: {', '.join(names)}. Name yours as --{key}."
            )
    if images:
        text = text or _known(names, IMAGES) or _unclear(path, names, "text")
    pair = None if text else _first_pair(names)
    text = text or (pair[0] if pair else _text(path, names, label))
    second = (pair[1] if pair else "") if text_pair is None else text_pair
    if label is None:
        label = "" if scores_pairs and not second else _label(path, names, {text, second})
    return Columns(text, second, label)


def _first_pair(names: Sequence[str]) -> tuple[str, str] | None:
    known = {name.lower(): name for name in names}
    return next(((known[a], known[b]) for a, b in PAIRS if a in known and b in known), None)


def _text(path: str, names: Sequence[str], label: str | None) -> str:
    left = [name for name in _content(names) if name.lower() not in LABELS and name != label]
    return _known(names, TEXTS) or _only(left) or _unclear(path, names, "text")


def _label(path: str, names: Sequence[str], texts: Iterable[str]) -> str:
    """Empty if there is no other column: then the dense model's answers are the labels."""
    left = [name for name in _content(names) if name not in texts]
    if not left:
        return ""
    return _known(left, LABELS) or _only(left) or _unclear(path, names, "label")


def _content(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.lower() not in NUMBERS]


def _known(names: Sequence[str], usual: Sequence[str]) -> str:
    by_name = {name.lower(): name for name in names}
    return next((by_name[name] for name in usual if name in by_name), "")


def _only(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ""


def _unclear(path: str, names: Sequence[str], key: str) -> NoReturn:
    raise StudyError(
        f"cannot tell which column of {path} is the {key}. It has: {', '.join(names)}. "
        f"Name yours: paretoformer init MODEL {quote(path)} --{key} COLUMN."
    )
