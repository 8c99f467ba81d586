"""A job: one phase of evaluating a candidate, as sent to a worker.

Does not import torch, so that a worker that only evaluates a formula starts fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from paretoformer.evaluators.artifact import Artifact, needs_artifact
from paretoformer.evaluators.common.measurement import Measurements
from paretoformer.evaluators.data.examples import SplitName
from paretoformer.evaluators.outcome import Phase, Result
from paretoformer.evaluators.timing.quiet import Waiting
from paretoformer.spaces.candidate import Candidate


@dataclass(frozen=True)
class Baseline:
    """The uncompressed model in a compiled runtime, in alternation with which a candidate is timed.

    measurements: in this run. artifact: its files.
    """

    candidate: Candidate
    measurements: Measurements
    artifact: Artifact | None


@dataclass(frozen=True)
class Job:
    """One phase of evaluating a candidate.

    reference: the measurements of the dense model; None while the dense model itself is measured.
    artifact: the output of the build phase, if the candidate needs one.
    waiting: how a timing may wait for a quiet machine; the time limit excludes this wait.
    baseline: of a timing; None: it alternates with the dense model. is_baseline: whether other
    timings will alternate with this candidate, so that they inherit its error.
    """

    candidate: Candidate
    split: SplitName
    phase: Phase
    reference: Measurements | None = None
    artifact: Artifact | None = None
    waiting: Waiting = field(default_factory=Waiting)
    baseline: Baseline | None = None
    is_baseline: bool = False

    @property
    def seconds(self) -> float:
        """Seconds of intended waiting, which the time limit excludes."""
        if self.phase is not Phase.BUILD:
            return self.waiting.seconds
        return 2 * self.candidate.seconds

    @property
    def exclusive(self) -> bool:
        """Whether it must run alone on the machine."""
        return self.phase is Phase.TIMING


class Evaluates(Protocol):
    """The object that a worker runs jobs with: `Evaluator`, or a formula in tests."""

    def prepare(self, threads: int) -> None:
        """Called once in the worker process, before the first job."""

    def run(self, job: Job) -> Result: ...


def phases(candidate: Candidate) -> tuple[Phase, ...]:
    """The phases of evaluating a candidate, in order; a failed phase ends the evaluation."""
    build = (Phase.BUILD,) if needs_artifact(candidate) else ()
    return (*build, Phase.SHARED, Phase.TIMING)
