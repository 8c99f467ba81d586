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
"""Of the columns that say it."""


def is_disturbed(row: pd.Series[Any], names: Iterable[str]) -> bool:
    """Whether one of these metrics was timed while other work ran."""
    found = (row.get(f"{name}{ENDING}") for name in names)
    return any(isinstance(each, bool | np.bool_) and bool(each) for each in found)


def undisturbed(rows: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """The rows of which none of these metrics was timed while other work ran."""
    names = list(names)
    sure = [not is_disturbed(row, names) for _, row in rows.iterrows()]
    return rows.loc[np.array(sure, dtype=bool)]


def mark(row: pd.Series[Any], name: str) -> str:
    """What stands behind the number of a metric."""
    return f" {MARK}" if is_disturbed(row, [name]) else ""


def of_rows(rows: pd.DataFrame) -> str:
    """What is to be said of a table with these rows; empty where nothing is."""
    names = [str(c).removesuffix(ENDING) for c in rows.columns if str(c).endswith(ENDING)]
    marked = [
        _foreign_cores(row, name)
        for _, row in rows.iterrows()
        for name in names
        if is_disturbed(row, [name])
    ]
    return sentence(max(marked)) if marked else ""


def sentence(cores: float) -> str:
    """cores: that others kept busy, at most."""
    return (
        f"timed beside other work: {cores:.1f} cores were busy; run the same command again to time "
        "it anew"
    )


def conditions_of(row: pd.Series[Any], name: str) -> dict[str, float]:
    """What the machine did meanwhile, as the row keeps it."""
    text = row.get(f"{name}_conditions")
    return dict(json.loads(text)) if isinstance(text, str) else {}


def _foreign_cores(row: pd.Series[Any], name: str) -> float:
    return conditions_of(row, name).get("foreign_cores", 0.0)
