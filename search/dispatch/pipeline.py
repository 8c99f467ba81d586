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
    """left: the phases that were not submitted yet. future: of the last one submitted."""

    candidate: Candidate
    reference: Measurements | None
    left: list[Phase]
    future: Future[Result] | None = None
    results: list[Result] = field(default_factory=list)


class Pipeline:
    """Submits a candidate's phases one after the other, and merges their results.

    A failed phase ends its candidate: if it cannot be scored, it is not timed.

    artifacts: where built candidates are looked up and kept; None: nowhere.
    baseline: returns the record of the uncompressed model with which timings in compiled runtimes
    alternate; None: with the dense model. The first such timing may become the baseline, so the
    others wait for it.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        split: SplitName,
        artifacts: ArtifactFolder | None = None,
        baseline: Callable[[], TrialRecord | None] | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._split = split
        self._artifacts = artifacts
        self._baseline = baseline
        self._first: int | None = None
        self._waits = baseline is not None
        self._kept: tuple[Measurements, Baseline | None] | None = None
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
        self._underway[key] = _Underway(candidate, reference, left)
        self._submit(key)

    def _submit(self, key: int) -> None:
        """Submit the next phase, unless it must wait."""
        entry = self._underway[key]
        candidate, phase = entry.candidate, entry.left[0]
        times = phase is Phase.TIMING and is_compiled(candidate)
        baseline = self._baseline() if times and self._baseline is not None else None
        if times and self._waits and baseline is None:
            self._first = key if self._first is None else self._first
            if self._first != key:
                return
        artifact = None
        if self._artifacts is not None and phase is not Phase.BUILD:
            artifact = self._artifacts.of(candidate)
        job = Job(candidate, self._split, phase, entry.reference, artifact)
        if baseline is not None and baseline.candidate != candidate:
            job = replace(job, baseline=self._served(baseline))
        elif times and (baseline is not None or self._waits):
            job = replace(job, is_baseline=True)
        entry.left.pop(0)
        entry.future = self._dispatcher.submit(job)

    def _served(self, record: TrialRecord) -> Baseline | None:
        """A baseline with its files; None if they are gone."""
        if self._kept is None or self._kept[0] != record.measurements:
            artifacts, found = self._artifacts, None
            if artifacts is not None and artifacts.has(record.candidate):
                files = artifacts.of(record.candidate)
                found = Baseline(record.candidate, record.measurements, files)
            self._kept = record.measurements, found
        return self._kept[1]

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
            if entry.future is not None:
                if not entry.future.done():
                    continue
                self._collect(entry, entry.future.result())
                entry.future = None
            if entry.left and all(result.outcome is Outcome.OK for result in entry.results):
                self._submit(key)
                continue
            del self._underway[key]
            done.append((key, _union(entry.results)))
        for key, result in done:
            if key == self._first:  # the caller will know its record at the next call
                self._first = None
                self._waits &= result.outcome is not Outcome.OK
        return done

    def _collect(self, entry: _Underway, result: Result) -> None:
        """Take a phase's result, and keep its artifact.

        Raises:
            DiskFull: the worker had no room for its files.
        """
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
