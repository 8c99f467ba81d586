"""Screening many candidates: in this process or, if that would take long, on workers."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol

import numpy as np

from paretoformer.evaluators.job import Evaluates, Job
from paretoformer.evaluators.outcome import Outcome, Phase
from paretoformer.search.dispatch.dispatcher import Dispatcher
from paretoformer.search.dispatch.memory import room_after
from paretoformer.search.dispatch.signals import INTERRUPTS
from paretoformer.search.planning.screen import NATS, Screen, ScreenEvaluator
from paretoformer.search.records.errors import StudyFailed, UserError
from paretoformer.spaces.candidate import Candidate

TRIED = 4
"""Candidates that are screened here first, to estimate the time."""
LONG_SECONDS = 60.0
"""Work that takes longer goes to workers, which need some seconds to start."""

Nats = Generator[tuple[Candidate, float], None, None]


class StartsWorkers(Protocol):
    """Starts workers that hold an evaluator, at most `most`."""

    def __call__(
        self, evaluator: Evaluates, *, most: int
    ) -> AbstractContextManager[Dispatcher]: ...


class Screener:
    """Candidates -> (candidate, nats), once per candidate and in any order.

    Workers start when first needed and end with the block. If they do not start, die or run out of
    memory, the rest is screened here, and they are not used again.

    workers: None, or memory for fewer than two of them: everything is screened here.
    left: estimated number of candidates after the first call, for the estimate of the time.
    trouble: why workers failed; empty if they did not.
    """

    def __init__(self, screen: Screen, workers: StartsWorkers | None = None, left: int = 0) -> None:
        self._screen, self._workers, self._left = screen, workers, left
        self._most = 0
        if workers is not None:
            self._most = room_after(screen.nbytes) // screen.worker_bytes
        self._stack = ExitStack()
        self._dispatcher: Dispatcher | None = None
        self._seconds: list[float] = []
        self.trouble = ""

    def __enter__(self) -> Screener:
        return self

    def __exit__(self, kind: Any, *exception: Any) -> None:
        self._end_workers()
        if kind is None:
            INTERRUPTS.check()  # for a signal that came while the dispatcher polled

    def __call__(self, candidates: Sequence[Candidate]) -> Nats:
        waiting = dict.fromkeys(candidates)
        while waiting:
            if self._is_long(len(waiting)):
                for candidate, nats in self._by_workers(tuple(waiting)):
                    del waiting[candidate]
                    yield candidate, nats
                if waiting:
                    self._give_workers_up()
            else:
                candidate = next(iter(waiting))
                begun = time.monotonic()
                nats = self._screen.of(candidate)
                self._seconds.append(time.monotonic() - begun)
                del waiting[candidate]
                yield candidate, nats

    def _is_long(self, waiting: int) -> bool:
        if self._dispatcher is not None:
            return True
        if self._most < 2 or len(self._seconds) < TRIED:
            return False
        return float(np.median(self._seconds)) * (waiting + self._left) > LONG_SECONDS

    def _by_workers(self, candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, float]]:
        try:
            dispatcher = self._started()
            jobs = [Job(candidate, "search", Phase.SHARED) for candidate in candidates]
            under_way = {job.candidate: dispatcher.submit(job) for job in jobs}
            while under_way:
                done = [key for key, future in under_way.items() if future.done()]
                for candidate in done:
                    result = under_way.pop(candidate).result()
                    if result.outcome is Outcome.OK:
                        yield candidate, result.measurements[NATS].value
                    else:
                        self.trouble = result.message or result.outcome.value
                if not done:
                    dispatcher.wait()
        except (StudyFailed, UserError) as error:
            self.trouble = str(error)

    def _started(self) -> Dispatcher:
        if self._dispatcher is None and self._workers is not None:
            workers = self._workers(ScreenEvaluator(self._screen), most=self._most)
            self._dispatcher = self._stack.enter_context(workers)
        assert self._dispatcher is not None
        return self._dispatcher

    def _give_workers_up(self) -> None:
        self._end_workers()
        self._most = 0
        INTERRUPTS.check()

    def _end_workers(self) -> None:
        self._stack.close()
        self._dispatcher = None
