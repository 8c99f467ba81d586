"""The base class of metrics: name, unit, direction, role, and how to measure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from paretoformer.evaluators.common.directions import Direction, Role
from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.metrics.bench import Bench


class Metric(ABC):
    """One property of a rebuilt model.

    Laws, checked by `paretoformer.testing.check_metric`: the value lies in its interval; a value
    that cannot be measured on this machine or in a runtime is None or `unavailable`, not a guess.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    direction: ClassVar[Direction]
    role: ClassVar[Role]
    requirement: ClassVar[str] = ""
    """Default requirement of `best` for a quality metric, such as `accuracy>=dense-0.01`."""
    likeness: ClassVar[bool] = False
    """Whether it compares with the dense model's outputs, without labels."""
    confirms: ClassVar[bool] = False
    """Whether only a confirmation measures it."""
    of_generation: ClassVar[bool] = False
    """Whether it applies to language models only."""
    of_texts: ClassVar[bool] = False
    """Whether it applies only to tasks that answer texts in one forward."""
    of_vectors: ClassVar[bool] = False
    """Whether it applies only to tasks that embed."""
    of_size: ClassVar[bool] = False
    """Whether it says how large a model is."""
    slow: ClassVar[bool] = False
    """Whether it takes seconds, so that it is measured only if a study asks for it."""
    exclusive: ClassVar[bool] = False
    """Whether it must be measured alone on the machine, like a timing."""

    @abstractmethod
    def measure(self, bench: Bench) -> Measurement | None:
        """None: unmeasurable in the candidate's runtime."""

    def unavailable(self, target: Target) -> str:
        """Why this machine cannot measure it; empty if it can."""
        return ""

    def unmeasurable_reason(self, runtime: str) -> str:
        """Why it is unmeasurable in a runtime; empty if it is measurable."""
        return ""


class Quality(Metric):
    """Compression may harm it; higher is better unless a subclass differs."""

    direction: ClassVar[Direction] = "maximize"
    role: ClassVar[Role] = "quality"


class Cost(Metric):
    """Compression should reduce it."""

    direction: ClassVar[Direction] = "minimize"
    role: ClassVar[Role] = "cost"
