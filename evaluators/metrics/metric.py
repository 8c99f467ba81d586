"""What every metric promises: a name, a unit, a direction, a role, and how it is measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from paretoformer.evaluators.common.directions import Direction, Role
from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.metrics.bench import Bench


class Metric(ABC):
    """One property of a rebuilt model.

    Laws, checked for every metric by `paretoformer.testing.check_metric`: the value lies in its
    interval; what cannot be measured here, or in a runtime, is None or `unavailable`, not a guess.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    direction: ClassVar[Direction]
    role: ClassVar[Role]
    requirement: ClassVar[str] = ""
    """Of a quality metric: what `best` asks for by default, such as `accuracy>=dense-0.01`."""
    likeness: ClassVar[bool] = False
    """Whether it compares answers with the dense model's own, and needs no labels."""
    of_generation: ClassVar[bool] = False
    """Whether only language models have it."""
    exclusive: ClassVar[bool] = False
    """Whether it must be measured alone on the machine, as a timing must."""

    @abstractmethod
    def measure(self, bench: Bench) -> Measurement | None:
        """None: it cannot be measured in the candidate's runtime."""

    def unavailable(self, target: Target) -> str:
        """Why this machine cannot measure it; empty when it can."""
        return ""

    def unmeasurable_reason(self, runtime: str) -> str:
        """Why it cannot be measured of a candidate in this runtime; empty when it can."""
        return ""


class Quality(Metric):
    """What compression may harm; better when it is higher, unless a subclass says otherwise."""

    direction: ClassVar[Direction] = "maximize"
    role: ClassVar[Role] = "quality"


class Cost(Metric):
    """What compression is to lower."""

    direction: ClassVar[Direction] = "minimize"
    role: ClassVar[Role] = "cost"
