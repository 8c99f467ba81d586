"""The bench: a candidate that is being measured, and all that its metrics need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from paretoformer.evaluators.common.measurement import Measurements
from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.data.workload import Split, Workload
from paretoformer.evaluators.tasks.task import Task
from paretoformer.evaluators.timing.protocol import TimingProtocol
from paretoformer.evaluators.timing.quiet import Quiet
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
