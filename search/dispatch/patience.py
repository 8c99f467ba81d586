"""Patience: how long a worker's timings may wait for a quiet machine."""

from __future__ import annotations

from dataclasses import dataclass

from paretoformer.evaluators.outcome import Result
from paretoformer.evaluators.timing.quiet import is_crowded

SHARE = 0.25
"""A wait in vain reduces the patience to this share."""


@dataclass
class Patience:
    """Full until a timing waits in vain; the next one then waits a quarter as long.

    A load that never ends thus costs 4/3 of the patience in total, not all of it per timing. The
    first timing on a quiet machine restores it.
    """

    full: float
    in_vain: int = 0

    @property
    def seconds(self) -> float:
        return self.full * SHARE**self.in_vain

    def learn(self, result: Result) -> None:
        """Update from the machine's load during a timing, whatever the reference was."""
        timings = [m for m in result.measurements.values() if "foreign_cores" in m.conditions]
        if timings:
            self.in_vain = self.in_vain + 1 if any(map(is_crowded, timings)) else 0
