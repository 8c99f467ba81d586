"""A measurement carries its interval, unit and samples; a failed one is an outcome with advice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


@dataclass(frozen=True)
class Measurement:
    """One number with its 95% interval, in its unit.

    samples: the readings behind a timing, in the same unit; empty for what was counted.
    stable: False when the readings scattered too much to be trusted.
    """

    value: float
    low: float
    high: float
    unit: str
    samples: tuple[float, ...] = ()
    stable: bool = True

    @classmethod
    def exact(cls, value: float, unit: str) -> Measurement:
        """A number that was counted: its interval is a point."""
        return cls(value, value, value, unit)

    def to_dict(self) -> dict[str, Any]:
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "unit": self.unit,
            "samples": list(self.samples),
            "stable": self.stable,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Measurement:
        return cls(**{**data, "samples": tuple(data["samples"])})


Measurements = Mapping[str, Measurement]
"""Metric name -> its measurement."""


class Outcome(Enum):
    """How a trial ended; the value is advice for the user."""

    OK = ""
    OUT_OF_MEMORY = "The target ran out of memory. Lower `target.batch_size` in the study file."
    TIME_LIMIT = "The trial took longer than `search.trial_seconds`. Raise it in the study file."
    ERROR = "The candidate raised an exception; the message of its row says which."
    WORKER_DIED = "The worker process died while it measured, three times in a row."

    @property
    def label(self) -> str:
        """As written in the files: `ok`, `out_of_memory`, ..."""
        return self.name.lower()


@dataclass(frozen=True)
class Result:
    """What came back from measuring one candidate: numbers, or the reason why there are none.

    message: the exception's own words, where there was one.
    host, started, ended: where, and when in Unix seconds, it was measured.
    """

    outcome: Outcome
    measurements: Measurements = field(default_factory=dict)
    message: str = ""
    host: str = ""
    started: float = 0.0
    ended: float = 0.0
