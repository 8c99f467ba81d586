"""What every metric promises: a name, a unit, a direction, a role, and how it is measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn

from paretoformer.evaluators.directions import Direction, Role
from paretoformer.evaluators.measurement import Measurement, Measurements
from paretoformer.evaluators.target import Target
from paretoformer.evaluators.tasks.task import Task
from paretoformer.evaluators.timing.protocol import TimingProtocol
from paretoformer.evaluators.timing.quiet import Quiet
from paretoformer.evaluators.workload import Split, Workload
from paretoformer.spaces.runtimes import Runnable


@dataclass(frozen=True)
class Bench:
    """A candidate on the bench: what is measured, on which data, and compared with what.

    runnable: the candidate as it would be served.
    model: its rebuilt torch model, of which parameters and operations are counted.
    dense: the uncompressed torch model with `sdpa`.
    reference: the dense model's measurements in this run; None while they are being made.
    protocol: how long a timing goes on. quiet: how long it waits for a quiet machine.
    steering: the examples that answers are compared with the dense model's on; None: the split.
    dense_outputs: what the dense model said before in this process; memo: what was found out.
    """

    runnable: Runnable
    model: nn.Module
    dense: nn.Module
    reference: Measurements | None
    task: Task
    split: Split
    workload: Workload
    target: Target
    protocol: TimingProtocol
    steering: Split | None = None
    quiet: Quiet = field(default_factory=Quiet, repr=False)
    dense_outputs: dict[tuple[int, int], list[Any]] = field(default_factory=dict, repr=False)
    memo: dict[str, Any] = field(default_factory=dict, repr=False)


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
