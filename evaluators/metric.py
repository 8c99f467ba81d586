"""What every metric promises: a name, a unit, a direction, and how it is measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import nn

from paretoformer.evaluators.measurement import Measurement, Measurements
from paretoformer.evaluators.target import Target

if TYPE_CHECKING:
    from paretoformer.evaluators.latency import TimingProtocol
    from paretoformer.evaluators.workload import Split, Workload

Direction = Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Subject:
    """What is measured, and beside what.

    model: the rebuilt model; `dense` itself for the dense candidate.
    dense: the uncompressed model, with `sdpa`.
    dense_measurements: those of the dense model in this run; None while they are being made.
    protocol: how long a timing goes on.
    """

    model: nn.Module
    dense: nn.Module
    dense_measurements: Measurements | None
    split: Split
    workload: Workload
    target: Target
    protocol: TimingProtocol


class Metric(ABC):
    """One property of a rebuilt model.

    exclusive: True when it must be measured alone on the machine, as a timing must.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    direction: ClassVar[Direction]
    exclusive: ClassVar[bool] = False

    @abstractmethod
    def measure(self, subject: Subject) -> Measurement: ...

    def unavailable(self, target: Target) -> str:
        """Why this machine cannot measure it; empty when it can."""
        return ""
