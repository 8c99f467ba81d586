"""Disturbance: which numbers of a front were timed while other work ran.

Unknown for runs written before these columns existed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

MARK = "!"
ENDING = "_disturbed"
"""Suffix of the columns with the flag."""


def is_disturbed(row: pd.Series[Any], names: Iterable[str]) -> bool:
    """Whether one of these metrics was timed while other work ran."""
    found = (row.get(f"{name}{ENDING}") for name in names)
    return any(isinstance(flag, bool | np.bool_) and bool(flag) for flag in found)


def undisturbed(rows: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """The rows in which none of these metrics was timed while other work ran."""
    names = list(names)
    sure = [not is_disturbed(row, names) for _, row in rows.iterrows()]
    return rows.loc[np.array(sure, dtype=bool)]


def mark(row: pd.Series[Any], name: str) -> str:
    return f" {MARK}" if is_disturbed(row, [name]) else ""


def of_rows(rows: pd.DataFrame) -> str:
    """A sentence about a table with these rows; empty if no number is disturbed."""
    names = [str(c).removesuffix(ENDING) for c in rows.columns if str(c).endswith(ENDING)]
    marked = [
        _foreign_cores(row, name)
        for _, row in rows.iterrows()
        for name in names
        if is_disturbed(row, [name])
    ]
    return sentence(max(marked)) if marked else ""


def sentence(cores: float) -> str:
    """cores: the most that other work kept busy."""
    return (
        f"timed beside other work: {cores:.1f} cores were busy; run the same command again to time "
        "it anew"
    )


def conditions_of(row: pd.Series[Any], name: str) -> dict[str, float]:
    """The load of the machine during the timing, from the row."""
    text = row.get(f"{name}_conditions")
    return dict(json.loads(text)) if isinstance(text, str) else {}


def _foreign_cores(row: pd.Series[Any], name: str) -> float:
    return conditions_of(row, name).get("foreign_cores", 0.0)
