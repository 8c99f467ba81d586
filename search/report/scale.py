"""The range of a chart's axis, linear or logarithmic."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

MARGIN = 0.06
"""Free space at both ends, as a share of the range."""
LOG_FACTOR = 5
"""Costs that differ by more than this factor get a logarithmic scale."""


@dataclass(frozen=True)
class Scale:
    low: float
    high: float
    log: bool = False

    @classmethod
    def of(cls, values: Iterable[float], *, ratios: bool = False) -> Scale:
        """The range of all finite values. ratios: it may be logarithmic."""
        finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        if ratios and low > 0 and high > LOG_FACTOR * low:
            margin = (high / low) ** MARGIN
            return cls(low / margin, high * margin, log=True)
        margin = MARGIN * (high - low) or MARGIN * abs(high) or 1.0
        return cls(low - margin, high + margin)

    def holds(self, value: float) -> bool:
        return math.isfinite(value) and self.low <= value <= self.high

    def share(self, value: float) -> float:
        """Position of a value: 0 at the low end, 1 at the high end."""
        low, high, here = (self._position(x) for x in (self.low, self.high, value))
        return (here - low) / (high - low)

    def value(self, share: float) -> float:
        """The value at a position; the inverse of `share`."""
        if self.log:
            return math.exp(math.log(self.low) + share * math.log(self.high / self.low))
        return self.low + share * (self.high - self.low)

    def _position(self, value: float) -> float:
        return math.log(value) if self.log else value
