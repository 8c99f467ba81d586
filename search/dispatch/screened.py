"""Screening on the workers of a dispatcher."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol

from paretoformer.evaluators.evaluator import Evaluates, Job
from paretoformer.evaluators.outcome import Outcome, Phase
from paretoformer.evaluators.screening import NATS, Screen, ScreenEvaluator
from paretoformer.search.dispatch.dispatcher import Dispatcher
from paretoformer.search.dispatch.signals import INTERRUPTS
from paretoformer.search.errors import StudyFailed, UserError
from paretoformer.spaces.candidate import Candidate

StartsWorkers = Callable[[Evaluates], AbstractContextManager[Dispatcher]]
"""Starts workers that hold an evaluator."""


class StartsFewWorkers(Protocol):
    """The same; at most so many."""

    def __call__(
        self, evaluator: Evaluates, *, most: int
    ) -> AbstractContextManager[Dispatcher]: ...


class ScreenedByWorkers:
    """Screens candidates on workers, which start with the first call and end with the block.

    A candidate that no worker could screen, since it died or had no memory, is left out. Then the
    workers end; so they do, and what is left is left out, where they do not start or are gone.
    """

    def __init__(self, screen: Screen, workers: StartsWorkers) -> None:
        self._screen, self._workers = screen, workers
        self._stack = ExitStack()
        self._dispatcher: Dispatcher | None = None

    def __enter__(self) -> ScreenedByWorkers:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._close()

    def _close(self) -> None:
        self._stack.close()
        self._dispatcher = None

    def __call__(
        self, candidates: Sequence[Candidate]
    ) -> Generator[tuple[Candidate, float], None, None]:
        left = len(candidates)
        try:
            for candidate, nats in self._screened(candidates):
                left -= 1
                yield candidate, nats
        except (StudyFailed, UserError):
            pass
        if left:
            self._close()
            INTERRUPTS.check()  # a signal that came while the workers were asked for it

    def _screened(self, candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, float]]:
        if self._dispatcher is None:
            workers = self._workers(ScreenEvaluator(self._screen))
            self._dispatcher = self._stack.enter_context(workers)
        jobs = [Job(candidate, "search", Phase.SHARED) for candidate in candidates]
        under_way = {job.candidate: self._dispatcher.submit(job) for job in jobs}
        while under_way:
            done = [each for each, future in under_way.items() if future.done()]
            for candidate in done:
                result = under_way.pop(candidate).result()
                if result.outcome is Outcome.OK:
                    yield candidate, result.measurements[NATS].value
            if not done:
                self._dispatcher.wait()
