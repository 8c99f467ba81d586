"""The evaluator: builds and measures a candidate, or reports why that failed."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from paretoformer.evaluators.builder import Builder
from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.data.examples import SplitName
from paretoformer.evaluators.data.workload import Workload
from paretoformer.evaluators.job import Job
from paretoformer.evaluators.metrics import Bench, Metric
from paretoformer.evaluators.metrics.bench import Baseline
from paretoformer.evaluators.outcome import Outcome, Phase, Result, Span
from paretoformer.evaluators.tasks import Task
from paretoformer.evaluators.timing.protocol import TimingProtocol
from paretoformer.evaluators.timing.threads import set_threads
from paretoformer.spaces.axes.axis import Unsuitable
from paretoformer.spaces.common.malformed import one_line
from paretoformer.spaces.recovery import Teacher


class Evaluator:
    """Measures candidates of one model on one workload and target.

    protocols: how long to time in the search and in the confirmation.
    workspaces: folder in which interrupted builds are resumed.
    confirmed: names of the metrics that a confirmation measures; None: all.
    teacher: reference for repair; None: each process that needs one creates its own.
    by_labels: whether distillation learns from labels, too.
    shared: axis -> what it made once for all builds.

    Sent once to each worker, which uses it for all jobs.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        workload: Workload,
        target: Target,
        metrics: Mapping[str, Metric],
        protocols: Mapping[SplitName, TimingProtocol] | None = None,
        workspaces: Path | None = None,
        confirmed: Collection[str] | None = None,
        teacher: Teacher | None = None,
        *,
        by_labels: bool = False,
        shared: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.task = task
        self.workload = workload
        self.target = target
        self.metrics = dict(metrics)
        self.protocols = dict(protocols or {})
        self.workspaces = workspaces
        self.confirmed = frozenset(self.metrics if confirmed is None else confirmed)
        self.teacher = teacher
        self.by_labels = by_labels
        self.shared = shared
        self._builder: Builder | None = None
        self._dense_outputs: dict[tuple[int, int], list[Any]] = {}

    def prepare(self, threads: int) -> None:
        """Set the threads of this process and move the model to the target."""
        set_threads(threads)
        self.model = self.model.to(device=self.target.device, dtype=self.target.torch_dtype)
        self._builder = Builder(
            self.model,
            self.task,
            self.workload,
            self.target,
            threads,
            self.workspaces,
            self.teacher,
            by_labels=self.by_labels,
            shared=self.shared,
        )

    def run(self, job: Job) -> Result:
        """Build or measure. An exception becomes an outcome: a failed trial is data."""
        started = time.time()
        try:
            result = self._result(job)
        except Exception as error:
            result = failure(error)
        return replace(result, spans=(Span.since(started, job.phase),))

    def _result(self, job: Job) -> Result:
        if job.phase is Phase.BUILD:
            return Result(Outcome.OK, artifact=self._made.artifact(job.candidate))
        return Result(Outcome.OK, self._measure(job))

    @property
    def _made(self) -> Builder:
        if self._builder is None:
            raise RuntimeError("`prepare` was not called.")
        return self._builder

    def _measure(self, job: Job) -> dict[str, Measurement]:
        built = self._made.built(job.candidate, job.artifact)
        baseline = None
        if job.baseline is not None:
            runnable = self._made.baseline(job.baseline.candidate, job.baseline.artifact).runnable
            baseline = Baseline(runnable, job.baseline.measurements)
        protocol = self.protocols.get(job.split, TimingProtocol())
        bench = Bench(
            runnable=built.runnable,
            model=built.model,
            dense=self.model,
            reference=job.reference,
            task=self.task,
            split=self.workload.splits[job.split],
            workload=self.workload,
            target=self.target,
            protocol=protocol.of_reference if job.is_baseline else protocol,
            steering=self.workload.steering if job.split == "search" else None,
            baseline=baseline,
            quiet=job.waiting.quiet(),
            dense_outputs=self._dense_outputs,
        )
        confirms = job.split == "confirm"
        chosen = {
            n: m
            for n, m in self.metrics.items()
            if (n in self.confirmed if confirms else not m.confirms)
        }
        chosen = {n: m for n, m in chosen.items() if m.exclusive == job.exclusive}
        measurements = {name: metric.measure(bench) for name, metric in chosen.items()}
        return {name: measured for name, measured in measurements.items() if measured is not None}


def failure(error: Exception) -> Result:
    """The result of a job that raised."""
    return Result(_outcome_of(error), message=one_line(error, 500, with_type=True))


def _outcome_of(error: Exception) -> Outcome:
    if isinstance(error, Unsuitable):
        return Outcome.UNSUITABLE
    # torch's CPU allocator raises a plain RuntimeError; its message depends on the system.
    words = ("can't allocate memory", "not enough memory")
    out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in words)
    )
    return Outcome.OUT_OF_MEMORY if out_of_memory else Outcome.ERROR
