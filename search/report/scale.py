"""The scale of an axis: from values to shares of its length, and the values worth a label."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

MARGIN = 0.06
"""Of the length, left free at both ends."""
FACTOR = 5
"""Costs that differ by more are shown as ratios: on a logarithmic scale."""
STEPS = (1, 2, 5)
LABELS = 7
"""About how many values are labelled,"""
MOST_LABELS = 8
"""and at most, on a logarithmic scale."""


@dataclass(frozen=True)
class Scale:
    """low, high: the values at the ends of the axis."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def of(cls, values: Iterable[float], *, ratios: bool = False) -> Scale:
        """Of all finite values; ratios: whether it may be logarithmic."""
        finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(finite), max(finite)
        if ratios and low > 0 and high > FACTOR * low:
            margin = (high / low) ** MARGIN
            return cls(low / margin, high * margin, log=True)
        margin = MARGIN * (high - low) or MARGIN * abs(high) or 1.0
        return cls(low - margin, high + margin)

    def holds(self, value: float) -> bool:
        return math.isfinite(value) and self.low <= value <= self.high

    def share(self, value: float) -> float:
        """Where a value lies: 0 at the low end, 1 at the high one."""
        low, high, here = (self._position(each) for each in (self.low, self.high, value))
        return (here - low) / (high - low)

    def clipped(self, value: float) -> float:
        """The share of a value, or of the end that is nearest to it."""
        return self.share(min(max(value, self.low), self.high))

    def ticks(self) -> list[float]:
        """Round values, from three to about eight of them."""
        if not self.log:
            return list(self._even())
        by_steps = (list(self._round(steps)) for steps in (STEPS, (1, 3), (1,)))
        fitting = (found for found in by_steps if len(found) <= MOST_LABELS)
        found = next(fitting, [])
        return found if len(found) > 2 else list(self._even())

    def _position(self, value: float) -> float:
        return math.log(value) if self.log else value

    def _round(self, steps: Sequence[int]) -> Iterator[float]:
        """These multiples of each power of ten."""
        for power in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1):
            yield from (step * 10.0**power for step in steps if self.holds(step * 10.0**power))

    def _even(self) -> Iterator[float]:
        rough = (self.high - self.low) / LABELS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(each * power for each in (*STEPS, 10) if each * power >= rough)
        for index in range(math.ceil(self.low / step), math.floor(self.high / step) + 1):
            yield round(index * step, 12)
