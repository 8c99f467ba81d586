"""What every metric promises: a name, a unit, a direction, a role, and how it is measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from paretoformer.evaluators.common.directions import Direction, Role
from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.metrics.bench import Bench


class Metric(ABC):
    """One property of a rebuilt model.

    Laws, checked for every metric by `paretoformer.testing.check_metric`: the value lies in its
    interval; what the machine or the runtime cannot tell is None or `unavailable`, never a guess.
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
        """None: the candidate's runtime cannot tell."""

    def unavailable(self, target: Target) -> str:
        """Why this machine cannot measure it; empty when it can."""
        return ""

    def untold_by(self, value: Any) -> str:
        """Why it cannot be told of a candidate with this `runtime`; empty when it can."""
        return ""
