"""Outcomes: measurements or a reason with advice, and where and when they were made."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass, field
from enum import Enum

from paretoformer.evaluators.artifact import Artifact
from paretoformer.evaluators.common.measurement import Measurements


class Outcome(Enum):
    """How a trial ended; the value is advice for the user."""

    OK = ""
    OUT_OF_MEMORY = "The target ran out of memory. Lower `target.batch_size` in the study file."
    TIME_LIMIT = "The trial took longer than `search.trial_seconds`. Raise it in the study file."
    UNSUITABLE = "The runtime cannot run this candidate; the message of its row says why."
    ERROR = "The candidate raised an exception; the message of its row says which."
    WORKER_DIED = "The worker process died while it measured, three times in a row."

    @property
    def label(self) -> str:
        """As written in files: `ok`, `out_of_memory`, ..."""
        return self.name.lower()


class Phase(Enum):
    """The phases of evaluating a candidate; the value is the name in files."""

    BUILD = "build"
    """Conversion, if the candidate needs one; other jobs may run at the same time."""
    SHARED = "shared"
    """Metrics that do not need the machine alone."""
    TIMING = "timing"
    """Metrics that must run alone on the machine."""


@dataclass(frozen=True)
class Span:
    """Where and when one phase ran.

    host: machine name. process: process id. started, ended: Unix seconds.
    """

    phase: Phase
    host: str
    process: int
    started: float
    ended: float

    @classmethod
    def since(cls, started: float, phase: Phase) -> Span:
        """A phase of this process that ends now."""
        return cls(phase, platform.node(), os.getpid(), started, time.time())


@dataclass(frozen=True)
class Result:
    """The result of a job: measurements, or the reason why there are none.

    message: the exception's message, if any.
    spans: one for each phase that started.
    artifact: the files of a build.
    """

    outcome: Outcome
    measurements: Measurements = field(default_factory=dict)
    message: str = ""
    spans: tuple[Span, ...] = ()
    artifact: Artifact | None = None
