"""Patience: how long the timings of one worker may wait for a quiet machine."""

from __future__ import annotations

from dataclasses import dataclass

from paretoformer.evaluators.outcome import Result
from paretoformer.evaluators.timing.quiet import is_crowded

SHARE = 0.25
"""What is left of the patience after a wait in vain."""


@dataclass
class Patience:
    """Full until a timing waited in vain; each further one then waits a quarter as long.

    So a load that never ends costs 4/3 of the patience in all, not all of it for each timing. The
    first timing on a quiet machine makes it full again.
    """

    full: float
    in_vain: int = 0

    @property
    def seconds(self) -> float:
        """For the next timing."""
        return self.full * SHARE**self.in_vain

    def learn(self, result: Result) -> None:
        """From how the machine was while a timing ran, whatever its reference was."""
        timings = [m for m in result.measurements.values() if "foreign_cores" in m.conditions]
        if timings:
            self.in_vain = self.in_vain + 1 if any(map(is_crowded, timings)) else 0
