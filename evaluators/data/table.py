"""A table: the columns of a data file or data set, as they stand in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from paretoformer.evaluators.common.remark import Remark
from paretoformer.spaces.common.malformed import one_line


class DataError(ValueError):
    """The data cannot be used as it is; the message says what to change."""


def reason(error: BaseException) -> str:
    """The innermost cause in one line, for the end of a message."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error, 300, with_type=True)


@dataclass(frozen=True)
class ClassLabel:
    """A class that the file gives as a number, and the name that it has there."""

    number: int
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Table:
    """names: of every column. values: of those that were read, one a row; None: no value.

    remarks: what had to be guessed, such as a delimiter.
    """

    names: tuple[str, ...]
    values: Mapping[str, Sequence[Any]]
    remarks: tuple[Remark, ...] = ()

    def only(self, wanted: Collection[str]) -> Table:
        """Without the values of other columns."""
        return replace(self, values={n: each for n, each in self.values.items() if n in wanted})
