"""A measurement: a value with its interval, unit and samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Measurement:
    """One number with its 95% interval.

    samples: the readings of a timing, or the score of each example; empty for exact counts.
    stable: False if the readings scatter too much to be trusted.
    conditions: load of the machine meanwhile, such as `foreign_cores`.
    disturbed: whether it, or its reference, was taken while other processes kept the machine busy.
    False if unknown, as in runs written before this field existed.
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
        """An exact count: its interval is a point."""
        return cls(value, value, value, unit)

    @property
    def foreign_cores(self) -> float:
        """Mean number of cores that other processes used meanwhile; 0 if not observed."""
        return self.conditions.get("foreign_cores", 0.0)

    @property
    def slowdown(self) -> float:
        """The dense model's time meanwhile, divided by its reference; 1 if not observed."""
        return self.conditions.get("slowdown", 1.0)

    def to_dict(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "unit": self.unit,
            "samples": [int(sample) if sample.is_integer() else sample for sample in self.samples],
            "stable": self.stable,
            "conditions": dict(self.conditions),
            **({"disturbed": True} if self.disturbed else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Measurement:
        return cls(**{**data, "samples": tuple(map(float, data["samples"]))})

    def percentile(self, share: float) -> float:
        """The sample at a quantile, such as 0.99; ValueError if there are too few samples."""
        needed = samples_for(share)
        if len(self.samples) < needed:
            raise ValueError(
                f"the {share:.0%} percentile needs {needed} samples, but there are "
                f"{len(self.samples)}."
            )
        return float(np.quantile(self.samples, share, method="higher"))


def samples_for(share: float) -> int:
    """Samples needed to estimate a percentile: 662 for 0.99.

    With that many, the probability that at most one lies beyond the true percentile is at most 1%.
    Source: early stopping in the MLPerf inference rules.
    """
    count = 2
    while share**count + count * (1 - share) * share ** (count - 1) > 0.01:
        count += 1
    return count


Measurements = Mapping[str, Measurement]
"""Metric name -> its measurement."""
