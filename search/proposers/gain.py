"""The hypervolume that a candidate would add to the front, in quality and log latency."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paretoformer.evaluators.common.directions import Direction
from paretoformer.evaluators.metrics import Metric
from paretoformer.search.records.dominance import as_costs, hypervolume


class Gain:
    """In log latency, relative speed-ups of fast and slow candidates count the same.

    known: (quality, milliseconds) of measured candidates; at least one.
    least: the quality below which nothing is gained; None: the worst known.
    """

    def __init__(
        self, known: Sequence[tuple[float, float]], quality: Metric, least: float | None
    ) -> None:
        self._directions: list[Direction] = [quality.direction, "minimize"]
        self._points = np.array([[value, np.log(ms)] for value, ms in known])
        signs = np.array([-1.0 if quality.direction == "maximize" else 1.0, 1.0])
        self._reference = as_costs(self._points, self._directions).max(axis=0) * signs
        if least is not None:
            self._reference[0] = least
        self._volume = self._of(self._points)

    def of(self, value: float, milliseconds: float) -> float:
        return self._of(self._with(value, milliseconds)) - self._volume

    def add(self, value: float, milliseconds: float) -> None:
        """Count a candidate as measured."""
        self._points = self._with(value, milliseconds)
        self._volume = self._of(self._points)

    def _with(self, value: float, milliseconds: float) -> np.ndarray:
        return np.vstack((self._points, [value, np.log(milliseconds)]))

    def _of(self, points: np.ndarray) -> float:
        return hypervolume(points, self._directions, self._reference)
