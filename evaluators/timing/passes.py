"""Passes: calls that are timed one after the other, and their times."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from paretoformer.evaluators.timing.clocks import Stopwatch

LENGTHS = 8
"""Most lengths whose times are kept with a timing."""


@dataclass
class Pass:
    """Called: time every call once; returns their mean in milliseconds.

    times: milliseconds of every call so far, (passes, calls).
    """

    clock: Stopwatch
    calls: Sequence[Callable[[], object]]
    times: list[list[float]] = field(default_factory=list)

    def __call__(self) -> float:
        times = [self.clock(call) for call in self.calls]
        self.times.append(times)
        return sum(times) / len(times)

    def by_length(self, tokens: Sequence[int], mean: float) -> dict[str, float]:
        """`ms_at_<tokens>`: medians over the passes, in a scale in which their mean is `mean`.

        tokens: of each call; empty: nothing is returned.
        """
        if not tokens:
            return {}
        medians, lengths = np.median(self.times, axis=0), np.asarray(tokens)
        scaled = medians * mean / medians.mean()
        found = {
            f"ms_at_{length}": round(float(scaled[lengths == length].mean()), 4)
            for length in sorted(set(tokens), reverse=True)
        }
        return dict(list(found.items())[:: math.ceil(len(found) / LENGTHS)])
