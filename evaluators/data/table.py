"""A table: the columns of a data file or data set."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from paretoformer.evaluators.common.remark import Remark
from paretoformer.spaces.common.malformed import one_line


class DataError(ValueError):
    """The data cannot be used; the message says what to change."""


def reason(error: BaseException) -> str:
    """The innermost cause in one line, for messages."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error, 300, with_type=True)


@dataclass(frozen=True)
class ClassLabel:
    """A class number, and its name in the data set."""

    number: int
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Table:
    """names: of every column. values: of the columns that were read, one per row; None: missing.

    remarks: guesses, such as the delimiter.
    """

    names: tuple[str, ...]
    values: Mapping[str, Sequence[Any]]
    remarks: tuple[Remark, ...] = ()

    def only(self, wanted: Collection[str]) -> Table:
        """Without the values of other columns."""
        return replace(self, values={n: cells for n, cells in self.values.items() if n in wanted})
