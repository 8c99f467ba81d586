"""Bisection: measure first where candidates along a front stop satisfying a requirement."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def by_bisection(holds: Sequence[bool | None]) -> list[int]:
    """Indices in the order to measure them; measured ones come last.

    holds: whether a candidate satisfies the requirement, the smallest loss first; None: not
    measured. The gap between the last candidate that satisfies it and the first that does not is
    halved first. If nothing is measured or required, the gap is the whole path.
    """
    first = next((place for place, held in enumerate(holds) if held is False), len(holds))
    last = max((place for place in range(first) if holds[place]), default=-1)
    unknown = [place for place, held in enumerate(holds) if held is None]
    between = [place for place in _halves(last, first) if place in unknown]
    outside = [place for place in unknown if place not in between]
    outside.sort(key=lambda place: last - place if place < last else place - first)
    measured = [place for place in range(len(holds)) if place not in unknown]
    return [*between, *outside, *measured]


def _halves(low: int, high: int) -> list[int]:
    """The integers between `low` and `high`: the middle, then repeatedly that of the widest gap."""
    centre, found = (low + high) / 2, []
    gaps = [(low - high, 0.0, low, high)]
    while gaps:
        _, _, low, high = heapq.heappop(gaps)
        if high - low > 1:
            middle = (low + high) // 2
            found.append(middle)
            for a, b in ((low, middle), (middle, high)):
                heapq.heappush(gaps, (a - b, abs((a + b) / 2 - centre), a, b))
    return found
