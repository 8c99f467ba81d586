"""The evaluator: rebuilds a candidate and measures it, or says why that failed."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import nn

from paretoformer.evaluators.conditions import set_threads
from paretoformer.evaluators.data import SplitName
from paretoformer.evaluators.latency import TimingProtocol
from paretoformer.evaluators.measurement import Measurement, Measurements, Outcome, Result, Span
from paretoformer.evaluators.metric import Metric, Subject
from paretoformer.evaluators.target import Target
from paretoformer.evaluators.workload import Workload
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.surgery import apply


@dataclass(frozen=True)
class Job:
    """Measure one half of a candidate's metrics: the exclusive ones, or the others.

    exclusive: the timings, which need the machine for themselves.
    dense: the measurements of the dense model; None for the dense model's own.
    """

    candidate: Candidate
    split: SplitName
    exclusive: bool
    dense: Measurements | None = None


class Evaluates(Protocol):
    """What a worker holds: `Evaluator`, or a formula in tests."""

    def prepare(self, threads: int) -> None:
        """Called once in the worker's process, before the first job."""

    def run(self, job: Job) -> Result: ...


class Evaluator:
    """Measures candidates of one model on one workload and target.

    protocols: how long to time in the search and in the confirmation.

    Travels to a worker once and is used there for every job.
    """

    def __init__(
        self,
        model: nn.Module,
        workload: Workload,
        target: Target,
        metrics: Mapping[str, Metric],
        protocols: Mapping[SplitName, TimingProtocol] | None = None,
    ) -> None:
        self.model = model
        self.workload = workload
        self.target = target
        self.metrics = dict(metrics)
        self.protocols = dict(protocols or {})

    def prepare(self, threads: int) -> None:
        """Set the threads of this process and move the model to the target."""
        set_threads(threads)
        self.model = self.model.to(device=self.target.device, dtype=self.target.torch_dtype)

    def run(self, job: Job) -> Result:
        """Measure; an exception becomes an outcome, for a failed trial is data."""
        half = "timing" if job.exclusive else "shared"
        started = time.time()
        try:
            result = Result(Outcome.OK, self._measure(job))
        except Exception as error:
            result = failure(error)
        span = Span(half, platform.node(), os.getpid(), started, time.time())
        return replace(result, spans=(span,))

    def _measure(self, job: Job) -> dict[str, Measurement]:
        model = self.model if job.candidate.is_dense else apply(job.candidate, self.model).model
        subject = Subject(
            model=model.eval(),
            dense=self.model,
            dense_measurements=job.dense,
            split=self.workload.splits[job.split],
            workload=self.workload,
            target=self.target,
            protocol=self.protocols.get(job.split, TimingProtocol()),
        )
        return {
            name: metric.measure(subject)
            for name, metric in self.metrics.items()
            if metric.exclusive == job.exclusive
        }


def failure(error: Exception) -> Result:
    """The result of a job that raised."""
    message = " ".join(str(error).split())[:500]
    return Result(_outcome_of(error), message=f"{type(error).__name__}: {message}")


def _outcome_of(error: Exception) -> Outcome:
    # torch's CPU allocator raises a plain RuntimeError, in other words on each system.
    words = ("can't allocate memory", "not enough memory")
    out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(each in str(error) for each in words)
    )
    return Outcome.OUT_OF_MEMORY if out_of_memory else Outcome.ERROR
