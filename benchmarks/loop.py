"""Trials per second of the whole search loop when measurements take no time.

Ask, Ray (two jobs per trial), tell, storage, Parquet: the default sampler, the space of the
built-in study (6 layers x 12 heads, ranked, with windows). Each case runs in its own process with
an empty storage; memory is the peak of that process, without Ray's.

    python benchmarks/loop.py [--trials 500 10000] [--storage sqlite postgresql] [--profile FILE]
    python benchmarks/loop.py --workers 64 [--seconds 2] [--trials 2000]

With --workers, each of the simulated workers takes `--seconds` per job, on its own simulated
machine and without Ray; printed is the share of time that they are busy.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack, nullcontext
from heapq import heappop, heappush
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch  # noqa: F401  # before the clock starts
from ranked_space import space_of

from paretoformer.evaluators.common.target import cpu_name, physical_cores
from paretoformer.evaluators.formula import FormulaEvaluator
from paretoformer.evaluators.job import Job
from paretoformer.evaluators.metrics import Metric
from paretoformer.evaluators.metrics.accuracy import Accuracy
from paretoformer.evaluators.metrics.latency import Latency
from paretoformer.evaluators.outcome import Result
from paretoformer.search.dispatch.dispatcher import Dispatcher
from paretoformer.search.dispatch.pipeline import Pipeline
from paretoformer.search.dispatch.placement import places
from paretoformer.search.dispatch.ray_dispatcher import RayDispatcher
from paretoformer.search.dispatch.ray_session import ray_session
from paretoformer.search.loop import Search, stored_records
from paretoformer.search.proposers import Unseen, standard_proposers
from paretoformer.search.records.facts import RunFacts
from paretoformer.search.records.parquet import TrialsFile
from paretoformer.search.records.record import TrialRecord
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.study.optuna_study import ResumableStudy, open_study
from paretoformer.spaces.space import Space
from tests import postgres

PARTS = 5
"""Parts of a run whose speeds are printed separately."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[500, 10_000])
    parser.add_argument("--storage", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--profile", help="one case, in this process; where its profile goes")
    parser.add_argument("--case", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, help="simulated; how busy the loop keeps them")
    parser.add_argument("--seconds", type=float, default=2.0, help="of one of their jobs")
    options = parser.parse_args()
    if options.workers:
        show_use(options.trials[-1], options.workers, options.seconds)
        return
    if options.case or options.profile:
        with cProfile.Profile() if options.profile else nullcontext() as profile:
            found = measure(options.trials[0], options.storage[0])
        if options.profile:
            profile.dump_stats(options.profile)
        print(json.dumps(found))
        return
    print(f"{cpu_name()}, {physical_cores()} cores")
    print("storage     trials  asked  seconds  trials/s  in fifths of the run            peak MB")
    for storage in options.storage:
        for trials in options.trials:
            show(trials, storage)


def show(trials: int, storage: str) -> None:
    if storage == "postgresql" and (reason := postgres.unavailable_reason()):
        print(f"{storage:10s} {reason}")
        return
    command = [sys.executable, __file__, "--case", "--trials", str(trials), "--storage", storage]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = json.loads(output.splitlines()[-1])
    fifths = " ".join(f"{rate:5.0f}" for rate in found["rates"])
    print(
        f"{storage:10s} {trials:7d} {found['asked']:6d} {found['seconds']:8.1f} "
        f"{trials / found['seconds']:9.1f}  {fifths:31s} {found['peak_mb']:7.0f}",
        flush=True,
    )


class Simulated(Dispatcher):
    """Simulated workers that take `seconds` per job."""

    def __init__(self, workers: int, seconds: float) -> None:
        self.slots = workers
        self.busy = 0.0
        self._seconds, self._evaluator = seconds, FormulaEvaluator()
        self._free = [0.0] * workers
        self._jobs: list[tuple[float, int, Job, Future[Result]]] = []
        self._count = 0

    def submit(self, job: Job) -> Future[Result]:
        future: Future[Result] = Future()
        end = max(time.perf_counter(), heappop(self._free)) + self._seconds
        heappush(self._free, end)
        heappush(self._jobs, (end, self._count, job, future))
        self._count += 1
        self.busy += self._seconds
        return future

    def wait(self) -> None:
        if not self._jobs:
            return
        time.sleep(max(0.0, self._jobs[0][0] - time.perf_counter()))
        while self._jobs and self._jobs[0][0] <= time.perf_counter():
            _, _, job, future = heappop(self._jobs)
            future.set_result(self._evaluator.run(job))

    def close(self) -> None:
        """Nothing to close."""


def show_use(trials: int, workers: int, seconds: float) -> None:
    """Utilisation of simulated workers, after the uncompressed model is measured."""
    with Simulated(workers, seconds) as dispatcher, ExitStack() as stack:
        folder = RunFolder(stack.enter_context(tempfile.TemporaryDirectory()))
        space, objectives = space_of(layers=6, heads=12, length=64), [Accuracy(), Latency()]
        study = open_study("loop", folder.storage_url(""), objectives, "nsga2", 0)
        search, _ = search_of(study, space, objectives, folder, dispatcher, [])
        search.run(1)
        begun, before = time.perf_counter(), dispatcher.busy
        search.run(trials)
        elapsed = time.perf_counter() - begun
        busy = dispatcher.busy - before
    print(
        f"{cpu_name()}: {trials} trials of jobs of {seconds:g} s on {workers} simulated workers: "
        f"{elapsed:.0f} s, in use for {busy / workers / elapsed:.1%}, "
        f"{trials / elapsed:.1f} trials/s"
    )


def search_of(
    study: ResumableStudy,
    space: Space,
    objectives: list[Metric],
    folder: RunFolder,
    dispatcher: Dispatcher,
    marks: list[float],
) -> tuple[Search, TrialsFile]:
    """The loop around a dispatcher, and its file. marks: times at which records arrive."""
    names = [metric.name for metric in objectives]
    facts = RunFacts(study={}, machine={}, objectives=tuple(names), metrics={})
    file = TrialsFile(folder.trials, names, ["latency_ms"], facts)
    start = time.perf_counter()

    def on_record(records: Sequence[TrialRecord]) -> None:
        marks.append(time.perf_counter() - start)
        file.update(records)

    search = Search(
        study,
        space,
        standard_proposers(space, objectives),
        Unseen(space, 0),
        Pipeline(dispatcher, "search"),
        names,
        on_record,
    )
    return search, file


def measure(trials: int, storage: str) -> dict[str, object]:
    """Run one case, from an empty storage."""
    space = space_of(layers=6, heads=12, length=64)
    objectives: list[Metric] = [Accuracy(), Latency()]
    with ExitStack() as stack:
        folder = RunFolder(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(postgres.server()) if storage == "postgresql" else ""
        stack.enter_context(ray_session(None, physical_cores()))
        study = open_study("loop", folder.storage_url(url), objectives, "nsga2", 0)
        dispatcher = stack.enter_context(
            RayDispatcher(FormulaEvaluator(), where=places(), threads=1, seconds=60)
        )
        marks: list[float] = []
        start = time.perf_counter()
        search, file = search_of(study, space, objectives, folder, dispatcher, marks)
        file.update(search.run(trials), now=True)
        total = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        assert len(stored_records(study)) == trials
        ends = [trials * part // PARTS - 1 for part in range(1, PARTS + 1)]
        times = [0.0, *(marks[end] for end in ends)]
        return {
            "asked": len(study.get_trials(deepcopy=False)),
            "seconds": total,
            "rates": [trials / PARTS / (b - a) for a, b in pairwise(times)],
            "peak_mb": peak,
        }


if __name__ == "__main__":
    main()
