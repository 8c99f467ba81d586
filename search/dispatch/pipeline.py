"""The pipeline: takes many candidates at a time through all phases of their evaluation."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from paretoformer.evaluators.common.measurement import Measurements
from paretoformer.evaluators.data.examples import SplitName
from paretoformer.evaluators.job import Baseline, Job, phases
from paretoformer.evaluators.outcome import Outcome, Phase, Result
from paretoformer.search.dispatch.artifacts import ArtifactFolder
from paretoformer.search.dispatch.baseline import is_compiled
from paretoformer.search.dispatch.dispatcher import Dispatcher
from paretoformer.search.records.disk import REMEDY, says_full
from paretoformer.search.records.errors import DiskFull
from paretoformer.search.records.record import TrialRecord
from paretoformer.spaces.candidate import Candidate


@dataclass
class _Underway:
    """left: the phases after the one under way."""

    candidate: Candidate
    reference: Measurements | None
    left: list[Phase]
    future: Future[Result]
    results: list[Result] = field(default_factory=list)


class Pipeline:
    """Submits a candidate's phases one after the other, and merges their results.

    A failed phase ends its candidate: if it cannot be scored, it is not timed.

    artifacts: where built candidates are looked up and kept; None: nowhere.
    baseline: returns the record of the uncompressed model with which timings in compiled runtimes
    alternate; None: with the dense model.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        split: SplitName,
        artifacts: ArtifactFolder | None = None,
        baseline: Callable[[], TrialRecord | None] = lambda: None,
    ) -> None:
        self._dispatcher = dispatcher
        self._split = split
        self._artifacts = artifacts
        self._baseline = baseline
        self._underway: dict[int, _Underway] = {}

    @property
    def capacity(self) -> int:
        """Enough candidates under way to keep the workers busy between two rounds of timing."""
        return 4 * self._dispatcher.slots

    def __len__(self) -> int:
        return len(self._underway)

    def start(
        self,
        key: int,
        candidate: Candidate,
        reference: Measurements | None,
        skipped: Collection[Phase] = (),
    ) -> None:
        """Measure `candidate`; `key` comes back with its result.

        reference: the dense model's measurements; None for the dense model itself.
        skipped: phases whose results are known.
        """
        is_built = self._artifacts is not None and self._artifacts.has(candidate)
        done = {Phase.BUILD, *skipped} if is_built else {*skipped}
        left = [phase for phase in phases(candidate) if phase not in done]
        future = self._submit(candidate, left.pop(0), reference)
        self._underway[key] = _Underway(candidate, reference, left, future)

    def _submit(
        self, candidate: Candidate, phase: Phase, reference: Measurements | None
    ) -> Future[Result]:
        artifact = None
        if self._artifacts is not None and phase is not Phase.BUILD:
            artifact = self._artifacts.of(candidate)
        job = Job(candidate, self._split, phase, reference, artifact)
        if phase is Phase.TIMING and is_compiled(candidate):
            job = replace(job, baseline=self._baseline_of(candidate))
        return self._dispatcher.submit(job)

    def _baseline_of(self, candidate: Candidate) -> Baseline | None:
        record, artifacts = self._baseline(), self._artifacts
        if record is None or record.candidate == candidate or artifacts is None:
            return None
        if not artifacts.has(record.candidate):
            return None
        return Baseline(record.candidate, record.measurements, artifacts.of(record.candidate))

    def finished(self) -> list[tuple[int, Result]]:
        """The candidates that are done; waits for at least one. Empty if none is under way."""
        while self._underway:
            done = list(self._advance())
            if done:
                return done
            self._dispatcher.wait()
        return []

    def _advance(self) -> list[tuple[int, Result]]:
        done = []
        for key, entry in list(self._underway.items()):
            if not entry.future.done():
                continue
            self._collect(entry)
            if entry.left and entry.results[-1].outcome is Outcome.OK:
                entry.future = self._submit(entry.candidate, entry.left.pop(0), entry.reference)
                continue
            del self._underway[key]
            done.append((key, _union(entry.results)))
        return done

    def _collect(self, entry: _Underway) -> None:
        """Take a phase's result, and keep its artifact.

        Raises:
            DiskFull: the worker had no room for its files.
        """
        result = entry.future.result()
        if result.outcome is Outcome.ERROR and says_full(result.message):
            # Not the candidate's fault: it stays begun, and is measured once there is room.
            host = next((span.host for span in result.spans), "a worker")
            raise DiskFull(f"no room is left where {host} works: {result.message}. {REMEDY}")
        if result.artifact is not None and self._artifacts is not None:
            self._artifacts.put(entry.candidate, result.artifact)
        entry.results.append(replace(result, artifact=None))


def _union(results: list[Result]) -> Result:
    measurements = {name: m for result in results for name, m in result.measurements.items()}
    spans = tuple(span for result in results for span in result.spans)
    return replace(results[-1], measurements=measurements, spans=spans)
