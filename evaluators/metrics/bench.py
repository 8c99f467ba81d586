"""The bench: a candidate under measurement, with all that its metrics need."""

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
class Baseline:
    """The uncompressed model in a compiled runtime, and its measurements in this run."""

    runnable: Runnable
    measurements: Measurements


@dataclass(frozen=True)
class Bench:
    """A candidate with its data and reference.

    runnable: the candidate as it is served.
    model: its rebuilt torch model, for counts of parameters and operations.
    dense: the uncompressed torch model with `sdpa`.
    reference: the dense model's measurements in this run; None while they are taken.
    baseline: what timings alternate with in place of the dense model, if anything.
    protocol: when a timing ends. quiet: how long it waits for a quiet machine.
    steering: examples for comparison with the dense model's outputs; None: those of `split`.
    dense_outputs: cache of the dense model's outputs in this process. memo: cache of shared
    results.
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
    baseline: Baseline | None = None
    quiet: Quiet = field(default_factory=Quiet, repr=False)
    dense_outputs: dict[tuple[int, int], list[Any]] = field(default_factory=dict, repr=False)
    memo: dict[str, Any] = field(default_factory=dict, repr=False)
