"""A formula instead of measurements, for tests and benchmarks of the search loop."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.job import Job
from paretoformer.evaluators.outcome import Outcome, Result, Span
from paretoformer.spaces.candidate import Candidate


def formula(candidate: Candidate) -> tuple[float, float]:
    """(accuracy, latency_ms), both with diminishing returns in heads and full layers."""
    counts = candidate.heads.counts
    accuracy = sum(1 - 0.5**count for count in counts) / len(counts)
    windows = sum(choice.name != "full" for choice in candidate.attention)
    return accuracy - 0.01 * windows, 1.0 + sum(counts) - 0.5 * windows


@dataclass
class FormulaEvaluator:
    """Returns `formula` for every job, after `seconds`.

    failing: candidate id -> its outcome instead.
    dying: ids of candidates whose worker process exits.
    """

    seconds: float = 0.0
    failing: dict[str, Outcome] = field(default_factory=dict)
    dying: frozenset[str] = frozenset()

    def prepare(self, threads: int) -> None:
        """Nothing to do."""

    def run(self, job: Job) -> Result:
        started = time.time()
        if job.candidate.id in self.dying:
            os._exit(1)
        time.sleep(self.seconds)
        outcome = self.failing.get(job.candidate.id, Outcome.OK)
        if outcome is not Outcome.OK:
            return Result(outcome, message="as the test wants it")
        accuracy, latency = formula(job.candidate)
        measured = (
            {"latency_ms": Measurement(latency, latency, latency, "ms", samples=(latency,))}
            if job.exclusive
            else {"accuracy": Measurement.exact(accuracy, "fraction")}
        )
        return Result(Outcome.OK, measured, spans=(Span.since(started, job.phase),))
