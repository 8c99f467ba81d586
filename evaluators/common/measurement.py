"""A measurement carries its interval, its unit and its samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Measurement:
    """One number with its 95% interval, in its unit.

    samples: the readings behind a timing, in the same unit, or the score of each example; empty
        for what was counted.
    stable: False when the readings scattered too much to be trusted.
    conditions: what else the machine did meanwhile, such as `foreign_cores`.
    disturbed: whether it had to be taken while other processes kept the machine busy, or refers to
        one that was; False where it is not known, as in runs of before this was kept.
    """

    value: float
    low: float
    high: float
    unit: str
    samples: tuple[float, ...] = ()
    stable: bool = True
    conditions: Mapping[str, float] = field(default_factory=dict)
    disturbed: bool = False

    @classmethod
    def exact(cls, value: float, unit: str) -> Measurement:
        """A number that was counted: its interval is a point."""
        return cls(value, value, value, unit)

    @property
    def foreign_cores(self) -> float:
        """Cores that other processes kept busy meanwhile; 0 where nobody looked."""
        return self.conditions.get("foreign_cores", 0.0)

    def to_dict(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "unit": self.unit,
            "samples": [int(each) if each.is_integer() else each for each in self.samples],
            "stable": self.stable,
            "conditions": dict(self.conditions),
            **({"disturbed": True} if self.disturbed else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Measurement:
        return cls(**{**data, "samples": tuple(map(float, data["samples"]))})

    def percentile(self, share: float) -> float:
        """The sample that `share` of all do not exceed, such as 0.99.

        Raises:
            ValueError: there are too few samples to know it.
        """
        needed = samples_for(share)
        if len(self.samples) < needed:
            raise ValueError(
                f"the {share:.0%} percentile needs {needed} samples, but there are "
                f"{len(self.samples)}."
            )
        return float(np.quantile(self.samples, share, method="higher"))


def samples_for(share: float) -> int:
    """Samples without which a percentile is a guess: 662 for 0.99.

    So many that at most one of them beyond the true percentile would be a surprise of 1%. Source:
    the early stopping of the MLPerf inference rules.
    """
    count = 2
    while share**count + count * (1 - share) * share ** (count - 1) > 0.01:
        count += 1
    return count


Measurements = Mapping[str, Measurement]
"""Metric name -> its measurement."""
