"""The costs and gains of a point of the front against the dense model, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from paretoformer.search.records.facts import RunFacts
from paretoformer.search.report.cells import number, speedup

if TYPE_CHECKING:
    import pandas as pd

LEAST_CHANGE = 0.005
"""Smaller relative changes of a cost are not mentioned."""


@dataclass(frozen=True)
class Trade:
    """Phrases such as `9.48x (9.27 to 9.90) as fast`, `accuracy 0.007 lower (-0.019 to 0.005)`."""

    gains: tuple[str, ...]
    costs: tuple[str, ...]

    @property
    def text(self) -> str:
        parts = (("Gains", self.gains), ("Costs", self.costs))
        said = [f"{name}: {', '.join(phrases)}." for name, phrases in parts if phrases]
        return " ".join(said) or "As the dense model."


def trade(row: pd.Series[Any], dense: pd.Series[Any], facts: RunFacts) -> Trade:
    """row, dense: rows of `front.parquet`."""
    gains: list[str] = []
    costs: list[str] = []
    for name, metric in facts.metrics.items():
        phrase, change = _change(name, row, dense, facts)
        if phrase:
            better = change > 0 if metric.direction == "maximize" else change < 0
            (gains if better else costs).append(phrase)
    return Trade(_fastest_first(gains), _fastest_first(costs))


def _change(
    name: str, row: pd.Series[Any], dense: pd.Series[Any], facts: RunFacts
) -> tuple[str, float]:
    """A phrase, empty if nothing changed or is known; and the difference from dense."""
    change = row[name] - dense[name] if row[name] is not None else np.nan
    if change is None or np.isnan(change) or change == 0:
        return "", 0.0
    if name == facts.timing:
        return f"{speedup(row, facts)} as fast", change
    if facts.metrics[name].role == "quality":
        return _quality(name, row, change), change
    return _cost(name, change / dense[name] if dense[name] else np.nan), change


def _quality(name: str, row: pd.Series[Any], change: float) -> str:
    """Includes the interval of the paired difference, if known."""
    way = "higher" if change > 0 else "lower"
    low, high = (row.get(f"{name}_difference_{end}") for end in ("low", "high"))
    if low is None or high is None or np.isnan(low) or np.isnan(high):
        return f"{name} {number(abs(change))} {way}"
    unclear = ", which may be chance" if low <= 0 <= high else ""
    return f"{name} {number(abs(change))} {way} ({low:+.3f} to {high:+.3f}{unclear})"


def _cost(name: str, share: float) -> str:
    if np.isnan(share) or abs(share) < LEAST_CHANGE:
        return ""
    if share > 1:
        return f"{name} {share + 1:.1f} times"
    return f"{name} {abs(share):.0%} {'more' if share > 0 else 'less'}"


def _fastest_first(phrases: list[str]) -> tuple[str, ...]:
    return tuple(sorted(phrases, key=lambda phrase: not phrase.endswith(" as fast")))
