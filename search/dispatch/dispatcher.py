"""The seam between the search and the measurement: submit a job, get a future."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future
from typing import Any

from paretoformer.evaluators.job import Evaluates, Job
from paretoformer.evaluators.outcome import Result


class Dispatcher(ABC):
    """Runs jobs, in this process or elsewhere.

    While an exclusive job runs on a machine, no other job of the dispatcher runs there.
    """

    slots: int
    """The number of non-exclusive jobs that run at once."""

    @abstractmethod
    def submit(self, job: Job) -> Future[Result]:
        """Queue a job. Its future always gets a `Result`; a failure is a `Result` too."""

    @abstractmethod
    def wait(self) -> None:
        """Return when a submitted job is done, or at once if there is none."""

    @abstractmethod
    def close(self) -> None:
        """End the workers."""

    def __enter__(self) -> Dispatcher:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()


class InlineDispatcher(Dispatcher):
    """Runs every job in this process, at once."""

    slots = 1

    def __init__(self, evaluator: Evaluates, threads: int = 1) -> None:
        evaluator.prepare(threads)
        self._evaluator = evaluator

    def submit(self, job: Job) -> Future[Result]:
        future: Future[Result] = Future()
        future.set_result(self._evaluator.run(job))
        return future

    def wait(self) -> None:
        return

    def close(self) -> None:
        return
