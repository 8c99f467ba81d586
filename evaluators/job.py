"""A job: one phase of evaluating a candidate, as it travels to a worker.

Imports no torch, so that a worker which measures a formula starts fast.
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
class Job:
    """One phase of evaluating a candidate.

    reference: the measurements of the dense model; None for the dense model's own.
    artifact: what the build phase made, where the candidate needs one.
    waiting: how a timing may wait for a quiet machine, which no time limit counts.
    """

    candidate: Candidate
    split: SplitName
    phase: Phase
    reference: Measurements | None = None
    artifact: Artifact | None = None
    waiting: Waiting = field(default_factory=Waiting)

    @property
    def seconds(self) -> float:
        """How long it takes on purpose, which no time limit may end."""
        if self.phase is not Phase.BUILD:
            return self.waiting.seconds
        return 2 * self.candidate.seconds

    @property
    def exclusive(self) -> bool:
        """Whether it needs the machine for itself."""
        return self.phase is Phase.TIMING


class Evaluates(Protocol):
    """What a worker holds: `Evaluator`, or a formula in tests."""

    def prepare(self, threads: int) -> None:
        """Called once in the worker's process, before the first job."""

    def run(self, job: Job) -> Result: ...


def phases(candidate: Candidate) -> tuple[Phase, ...]:
    """What evaluating a candidate takes, in order; what fails ends it."""
    build = (Phase.BUILD,) if needs_artifact(candidate) else ()
    return (*build, Phase.SHARED, Phase.TIMING)
