"""The pipeline: both halves of measuring a candidate, many candidates at a time."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, replace

from paretoformer.evaluators.data import SplitName
from paretoformer.evaluators.evaluator import Job
from paretoformer.evaluators.measurement import Measurements, Outcome, Result
from paretoformer.search.dispatch import Dispatcher
from paretoformer.spaces.candidate import Candidate


@dataclass
class _Underway:
    candidate: Candidate
    dense: Measurements | None
    future: Future[Result]
    first: Result | None = None


class Pipeline:
    """Sends each candidate's shared job, then its exclusive one; hands back the union.

    A candidate whose first half failed is not timed.
    """

    def __init__(self, dispatcher: Dispatcher, split: SplitName) -> None:
        self._dispatcher = dispatcher
        self._split = split
        self._underway: dict[int, _Underway] = {}

    @property
    def capacity(self) -> int:
        """Enough candidates under way to keep the workers busy between two rounds of timing."""
        return 4 * self._dispatcher.slots

    def __len__(self) -> int:
        """Candidates under way."""
        return len(self._underway)

    def start(self, key: int, candidate: Candidate, dense: Measurements | None) -> None:
        """Measure `candidate`; `key` comes back with its result.

        dense: the measurements of the dense model; None for its own.
        """
        job = Job(candidate, self._split, exclusive=False, dense=dense)
        self._underway[key] = _Underway(candidate, dense, self._dispatcher.submit(job))

    def finished(self) -> list[tuple[int, Result]]:
        """What is done by now, waiting for at least one; empty when nothing is under way."""
        while self._underway:
            done = list(self._advance())
            if done:
                return done
            self._dispatcher.wait()
        return []

    def _advance(self) -> list[tuple[int, Result]]:
        done = []
        for key, each in list(self._underway.items()):
            if not each.future.done():
                continue
            result = each.future.result()
            if each.first is None and result.outcome is Outcome.OK:
                each.first = result
                job = Job(each.candidate, self._split, exclusive=True, dense=each.dense)
                each.future = self._dispatcher.submit(job)
                continue
            del self._underway[key]
            done.append((key, _union(each.first, result)))
        return done


def _union(first: Result | None, last: Result) -> Result:
    if first is None:
        return last
    return replace(
        last,
        measurements={**first.measurements, **last.measurements},
        spans=first.spans + last.spans,
    )
