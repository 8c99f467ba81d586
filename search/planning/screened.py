"""Screening on the workers of a dispatcher."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol

from paretoformer.evaluators.job import Evaluates, Job
from paretoformer.evaluators.outcome import Outcome, Phase
from paretoformer.search.dispatch.dispatcher import Dispatcher
from paretoformer.search.dispatch.signals import INTERRUPTS
from paretoformer.search.planning.screening import NATS, Screen, ScreenEvaluator
from paretoformer.search.records.errors import StudyFailed, UserError
from paretoformer.spaces.candidate import Candidate


class StartsWorkers(Protocol):
    """Starts workers that hold an evaluator. most: how many at most."""

    def __call__(
        self, evaluator: Evaluates, *, most: int
    ) -> AbstractContextManager[Dispatcher]: ...


class ScreenedByWorkers:
    """Screens candidates on workers, which start with the first call and end with the block.

    Candidates that the workers could not screen are left out, and the workers end: they did not
    start, they died, or there was no memory. most: how many workers at most.

    trouble: why candidates were left out; empty if none was.
    """

    def __init__(self, screen: Screen, workers: StartsWorkers, most: int) -> None:
        self._screen, self._workers, self._most = screen, workers, most
        self._stack = ExitStack()
        self._dispatcher: Dispatcher | None = None
        self.trouble = ""

    def __enter__(self) -> ScreenedByWorkers:
        return self

    def __exit__(self, kind: Any, *exception: Any) -> None:
        self._close()
        if kind is None:
            INTERRUPTS.check()  # for a signal that came while the dispatcher took care of them

    def __call__(
        self, candidates: Sequence[Candidate]
    ) -> Generator[tuple[Candidate, float], None, None]:
        left = len(candidates)
        try:
            for candidate, nats in self._screened(candidates):
                left -= 1
                yield candidate, nats
        except (StudyFailed, UserError) as error:
            self.trouble = str(error)
        if left:
            self._close()
            INTERRUPTS.check()

    def _screened(self, candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, float]]:
        if self._dispatcher is None:
            workers = self._workers(ScreenEvaluator(self._screen), most=self._most)
            self._dispatcher = self._stack.enter_context(workers)
        jobs = [Job(candidate, "search", Phase.SHARED) for candidate in candidates]
        under_way = {job.candidate: self._dispatcher.submit(job) for job in jobs}
        while under_way:
            done = [each for each, future in under_way.items() if future.done()]
            for candidate in done:
                result = under_way.pop(candidate).result()
                if result.outcome is Outcome.OK:
                    yield candidate, result.measurements[NATS].value
                else:
                    self.trouble = result.message or result.outcome.value
            if not done:
                self._dispatcher.wait()

    def _close(self) -> None:
        self._stack.close()
        self._dispatcher = None
