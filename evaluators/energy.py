"""Energy of one forward, from hardware counters."""

from __future__ import annotations

from typing import ClassVar

from paretoformer.evaluators.measurement import Measurement
from paretoformer.evaluators.metric import Direction, Metric, Subject
from paretoformer.evaluators.target import Target


class Energy(Metric):
    """Millijoules of one forward. No counter is read yet, so it is unavailable everywhere."""

    name = "energy_mj"
    unit = "mJ"
    direction: ClassVar[Direction] = "minimize"
    exclusive = True

    def measure(self, subject: Subject) -> Measurement:
        raise RuntimeError(self.unavailable(subject.target))

    def unavailable(self, target: Target) -> str:
        return "this version of paretoformer reads no energy counters"
