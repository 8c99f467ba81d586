"""A measurement: a value with its interval, unit and samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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


Measurements = Mapping[str, Measurement]
"""Metric name -> its measurement."""
