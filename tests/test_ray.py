"""Ray workers: the lease for timings, and workers that die or hang."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import psutil
import pytest

from paretoformer.evaluators.formula import FormulaEvaluator
from paretoformer.evaluators.job import Evaluates, Job
from paretoformer.evaluators.outcome import Outcome, Phase, Result
from paretoformer.evaluators.timing.foreign_load import Load
from paretoformer.search.dispatch.patience import SHARE
from paretoformer.search.dispatch.placement import places
from paretoformer.search.dispatch.ray_dispatcher import RayDispatcher
from paretoformer.search.dispatch.ray_session import ray_session
from paretoformer.search.dispatch.signals import interruptible
from paretoformer.search.planning import screener
from paretoformer.search.planning.screener import Screener
from paretoformer.search.records.errors import Interrupted
from paretoformer.spaces import Candidate, HeadMask
from tests.test_screening import candidates, screen

pytestmark = [pytest.mark.slow, pytest.mark.alone]

CANDIDATES = [
    Candidate(HeadMask.ranked((i, j), np.ones((2, 4)))) for i in range(5) for j in range(2)
]


@pytest.fixture(scope="module", autouse=True)
def ray_here() -> Iterator[None]:
    with ray_session(None, 2):
        yield


def jobs(phase: Phase) -> list[Job]:
    return [Job(candidate, "search", phase) for candidate in CANDIDATES]


def run(dispatcher: RayDispatcher, *work: Job) -> list[Result]:
    futures = [dispatcher.submit(job) for job in work]
    while not all(future.done() for future in futures):
        dispatcher.wait()
    return [future.result() for future in futures]


def processes(results: list[Result]) -> set[int]:
    return {span.process for result in results for span in result.spans}


def test_nothing_runs_beside_a_timing() -> None:
    with RayDispatcher(
        FormulaEvaluator(0.02), where=places(workers=2), threads=1, seconds=60
    ) as dispatcher:
        pairs = zip(jobs(Phase.SHARED), jobs(Phase.TIMING), strict=True)
        mixed = [job for pair in pairs for job in pair]
        results = run(dispatcher, *mixed)
    timings = [r for r, job in zip(results, mixed, strict=True) if job.exclusive]
    for timing in timings:
        (alone,) = timing.spans
        for other in results:
            (span,) = other.spans
            apart = span.ended <= alone.started or span.started >= alone.ended
            assert other is timing or apart
    shared = [r for r, job in zip(results, mixed, strict=True) if not job.exclusive]
    assert len(processes(shared)) == 2
    assert len(processes(timings)) == 1


def test_fresh_timings_each_have_their_own_process() -> None:
    with RayDispatcher(
        FormulaEvaluator(), where=places(workers=1), threads=1, seconds=60, fresh=True
    ) as dispatcher:
        results = run(dispatcher, *jobs(Phase.TIMING)[:3])
    assert len(processes(results)) == 3


def test_fresh_timings_start_in_pairs_and_none_starts_beside_a_timing() -> None:
    started: list[tuple[int, float]] = []
    with RayDispatcher(
        FormulaEvaluator(),
        where=places(workers=1),
        threads=2,
        seconds=60,
        fresh=True,
        on_worker=started.append,
    ) as dispatcher:
        results = run(dispatcher, *jobs(Phase.TIMING)[:3])
        fresh = [psutil.Process(n) for n, _ in started if psutil.pid_exists(n)]
        _, alive = psutil.wait_procs(fresh, timeout=5)
    spans = [span for result in results for span in result.spans]
    assert len(processes(results)) == 3
    for span in spans:
        assert not any(span.started < born < span.ended for _, born in started)
    assert len(alive) == 1  # the worker that scores: no fresh process was started in vain


def test_every_worker_is_reported_and_runs_at_normal_priority() -> None:
    started: list[tuple[int, float]] = []
    with RayDispatcher(
        FormulaEvaluator(), where=places(workers=1), threads=1, seconds=60, on_worker=started.append
    ):
        processes = [psutil.Process(number) for number, _ in started]
        assert len(processes) == 2
        assert {process.nice() for process in processes} == {psutil.Process().nice()}


def test_dead_worker_is_replaced_and_its_job_tried_three_times() -> None:
    dying = frozenset({CANDIDATES[1].id})
    with RayDispatcher(
        FormulaEvaluator(dying=dying), where=places(workers=2), threads=1, seconds=60
    ) as dispatcher:
        results = run(dispatcher, *jobs(Phase.SHARED))
    outcomes = [result.outcome for result in results]
    assert outcomes.pop(1) is Outcome.WORKER_DIED
    assert set(outcomes) == {Outcome.OK}


def test_job_over_its_time_is_ended_and_the_others_go_on() -> None:
    with RayDispatcher(
        FormulaEvaluator(30.0), where=places(workers=1), threads=1, seconds=0.5
    ) as dispatcher:
        assert run(dispatcher, jobs(Phase.SHARED)[0])[0].outcome is Outcome.TIME_LIMIT


@dataclass
class WaitingEvaluator(FormulaEvaluator):
    """Waits for a quiet machine that never comes, before it answers."""

    def run(self, job: Job) -> Result:
        quiet = replace(job.waiting.quiet(), look=lambda: Load(1.0, 2, "`apt-cache` (pid 123)"))
        quiet.wait()
        result = super().run(job)
        busy = {"foreign_cores": 1.0, "patience": job.waiting.seconds}
        measured = {k: replace(m, conditions=busy) for k, m in result.measurements.items()}
        return replace(result, measurements=measured)


def test_wait_for_a_quiet_machine_is_told_and_no_time_limit_counts_it() -> None:
    told: list[str] = []
    with RayDispatcher(
        WaitingEvaluator(),
        where=places(workers=1),
        threads=1,
        seconds=1.0,
        fresh=True,
        patience=3.0,
        on_waiting=told.append,
    ) as dispatcher:
        first, second = run(dispatcher, *jobs(Phase.TIMING)[:2])
    assert first.outcome is second.outcome is Outcome.OK
    assert told[:2] == [
        "waiting for a quiet machine: 1.0 of 2 cores used by `apt-cache` (pid 123)",
        "",
    ]
    allowed = [each.measurements["latency_ms"].conditions["patience"] for each in (first, second)]
    assert allowed == [3.0, 3.0 * SHARE]  # though each had a process of its own


def from_a_timer(number: int) -> None:
    threading.Timer(0.5, os.kill, (os.getpid(), number)).start()


class Swallowing:
    """A signal that comes while this is finalised: what its handler raises is lost."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self._number)


def status_of_a_wait_after(send: Callable[[int], object], number: int) -> int:
    with RayDispatcher(
        FormulaEvaluator(30.0), where=places(workers=1), threads=1, seconds=60
    ) as dispatcher:
        dispatcher.submit(jobs(Phase.SHARED)[0])

        def send_and_wait() -> None:
            send(number)
            dispatcher.wait()

        with pytest.raises(Interrupted) as caught, interruptible():
            send_and_wait()
    return caught.value.status


def statuses() -> list[int]:
    sent = [(from_a_timer, signal.SIGINT), (from_a_timer, signal.SIGTERM)]
    with ray_session(None, 2):
        return [
            status_of_a_wait_after(send, number)
            for send, number in [*sent, (Swallowing, signal.SIGINT)]
        ]


def test_signals_while_ray_waits_keep_their_numbers_and_none_is_lost_in_a_finaliser() -> None:
    others = multiprocessing.active_children()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as apart:  # signals are not for this process
        future = apart.submit(statuses)
        try:
            found = future.result(timeout=200)
        except TimeoutError:
            for child in multiprocessing.active_children():
                if child not in others:
                    child.kill()  # or the pool would wait for it
            raise
    assert found == [128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGINT]


def test_candidates_are_screened_by_workers_that_do_not_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(screener, "TRIED", 1)
    monkeypatch.setattr(screener, "LONG_SECONDS", 0.0)
    here = screen()

    def workers(evaluator: Evaluates, *, most: int) -> RayDispatcher:
        where = replace(places(workers=min(most, 2)), timing=())
        return RayDispatcher(evaluator, where=where, threads=1, seconds=60)

    with Screener(here, workers) as others:
        found = dict(others(candidates()))
        assert not others.trouble
    assert found == pytest.approx({each: here.of(each) for each in candidates()}, rel=1e-3)
