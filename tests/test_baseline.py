"""The baseline: the uncompressed model with which candidates in compiled runtimes alternate."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from paretoformer.evaluators.artifact import Artifact
from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.evaluator import Evaluator
from paretoformer.evaluators.job import Job
from paretoformer.evaluators.metrics import Bench
from paretoformer.evaluators.metrics.bench import Baseline
from paretoformer.evaluators.metrics.latency import Latency
from paretoformer.evaluators.outcome import Outcome, Phase, Result
from paretoformer.evaluators.timing import protocol
from paretoformer.evaluators.timing.intervals import SESSION, Reference, Timed
from paretoformer.evaluators.timing.protocol import TimingProtocol
from paretoformer.search.dispatch.artifacts import ArtifactFolder
from paretoformer.search.dispatch.baseline import baseline_of
from paretoformer.search.dispatch.dispatcher import Dispatcher
from paretoformer.search.dispatch.pipeline import Pipeline
from paretoformer.search.publish.confirm import confirm
from paretoformer.search.records.record import TrialRecord
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import load_subject
from paretoformer.spaces.axes.head_mask import HeadMask
from paretoformer.spaces.candidate import Candidate
from tests.test_lengths import bench
from tests.test_loop import new_search
from tests.tiny import write_study

DENSE = Candidate.dense(2, 4)
INT8, FLOAT = (DENSE.replaced(runtime=f"onnxruntime{each}") for each in (":int8", ""))
BFLOAT16 = DENSE.replaced(runtime="torch:bfloat16")
ALTERNATIVES = (INT8, FLOAT, BFLOAT16)
CUT = Candidate(HeadMask.none(2, 4), runtime="openvino:int8")


def timed(candidate: Candidate, ms: float) -> TrialRecord:
    latency = Measurement(ms, 0.9 * ms, 1.1 * ms, "ms")
    return TrialRecord(0, candidate, Result(Outcome.OK, {"latency_ms": latency}))


def chosen(*records: TrialRecord) -> Candidate | None:
    found = baseline_of(records, ALTERNATIVES, "latency_ms")
    return None if found is None else found.candidate


def test_baseline_is_the_fastest_compiled_alternative() -> None:
    dense, others = timed(DENSE, 9), (timed(BFLOAT16, 1), timed(CUT, 2))
    assert chosen(dense, *others) is None
    assert chosen(dense, *others, timed(FLOAT, 8)) == FLOAT
    assert chosen(dense, *others, timed(FLOAT, 8), timed(INT8, 5)) == INT8
    assert chosen(dense, timed(INT8, 10)) is None
    beside = timed(INT8, 5)
    measured = replace(beside.measurements["latency_ms"], disturbed=True)
    beside = replace(beside, result=Result(Outcome.OK, {"latency_ms": measured}))
    assert chosen(dense, beside, timed(FLOAT, 8)) == FLOAT
    failed = replace(timed(INT8, 5), result=Result(Outcome.ERROR))
    assert chosen(dense, failed) is None


@dataclass
class Recording(Dispatcher):
    """Keeps its jobs."""

    jobs: list[Job] = field(default_factory=list)
    slots = 1

    def submit(self, job: Job) -> Future[Result]:
        self.jobs.append(job)
        future: Future[Result] = Future()
        artifact = Artifact({"file": b"1"}) if job.phase is Phase.BUILD else None
        future.set_result(Result(Outcome.OK, artifact=artifact))
        return future

    def wait(self) -> None: ...

    def close(self) -> None: ...


def test_timings_in_compiled_runtimes_alternate_with_it(tmp_path: Path) -> None:
    artifacts, dispatcher = ArtifactFolder(tmp_path, ""), Recording()
    lane = Pipeline(dispatcher, "search", artifacts, lambda: timed(INT8, 5))
    for number, candidate in enumerate((INT8, CUT, BFLOAT16, FLOAT)):
        lane.start(number, candidate, {})
        while len(lane):
            lane.finished()
    against = {job.candidate: job.baseline for job in dispatcher.jobs if job.phase is Phase.TIMING}
    assert {candidate for candidate, found in against.items() if found} == {CUT, FLOAT}
    assert against[CUT] == against[FLOAT]
    assert against[CUT].measurements["latency_ms"].value == 5
    assert against[CUT].artifact == artifacts.of(INT8)
    assert all(job.baseline is None for job in dispatcher.jobs if job.phase is not Phase.TIMING)
    assert [job.candidate for job in dispatcher.jobs if job.is_baseline] == [INT8]


def test_alternatives_wait_for_the_first_to_alternate_with_it(tmp_path: Path) -> None:
    artifacts, dispatcher = ArtifactFolder(tmp_path, ""), Recording()
    records: list[TrialRecord] = []
    lane = Pipeline(
        dispatcher, "search", artifacts, lambda: baseline_of(records, ALTERNATIVES, "latency_ms")
    )
    records.append(timed(DENSE, 9))
    started = (BFLOAT16, FLOAT, INT8, CUT)
    for number, candidate in enumerate(started):
        lane.start(number, candidate, {})
    while len(lane):
        records += [timed(started[number], 8 - number) for number, _ in lane.finished()]
    timings = [job for job in dispatcher.jobs if job.phase is Phase.TIMING]
    assert {job.candidate for job in timings} == set(started)
    against = {job.candidate: job.baseline and job.baseline.candidate for job in timings}
    assert against == {BFLOAT16: None, FLOAT: None, INT8: FLOAT, CUT: FLOAT}
    assert [job.candidate for job in timings if job.is_baseline] == [FLOAT]


@dataclass
class Budget(Latency):
    """Keeps the seconds that a timing may take."""

    seen: list[float] = field(default_factory=list)

    def measure(self, bench: Bench) -> Measurement | None:
        self.seen.append(bench.protocol.seconds)
        return None


def test_what_others_alternate_with_is_timed_for_as_long_as_the_dense_model(tmp_path: Path) -> None:
    here, budget = load_subject(load_spec(write_study(tmp_path))), Budget()
    usual = TimingProtocol(seconds=2.0, reference_times=3)
    evaluator = Evaluator(
        here.model, here.task, here.workload, here.target, {"ms": budget}, {"search": usual}
    )
    evaluator.prepare(1)
    for is_baseline in (False, True):
        job = Job(DENSE, "search", Phase.TIMING, is_baseline=is_baseline)
        assert evaluator.run(job).outcome is Outcome.OK
    assert budget.seen == [2.0, 6.0]


def test_nothing_waits_where_no_baseline_comes(tmp_path: Path) -> None:
    dispatcher = Recording()
    lane = Pipeline(dispatcher, "search", ArtifactFolder(tmp_path, ""), lambda: None)
    for number, candidate in enumerate((FLOAT, INT8, CUT)):
        lane.start(number, candidate, {})
    while len(lane):
        lane.finished()
    assert len({job.candidate for job in dispatcher.jobs if job.phase is Phase.TIMING}) == 3


def test_a_host_that_slows_both_down_does_not_widen_the_interval() -> None:
    both = np.full((8, 2), 17.0)
    known = Measurement(10.0, 9.0, 11.0, "ms")
    found = Timed.of_rounds(both, both / 5, Reference.of(known))
    assert found.mean == pytest.approx(2.0)
    assert found.between == pytest.approx(np.hypot(SESSION, 0.1 / 1.96))


def test_latency_is_the_ratio_to_the_baseline_times_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "WARM_UP_SECONDS", 0.0)
    here = bench(load_subject(load_spec(write_study(tmp_path))))
    dense = {"latency_ms": Measurement(7.0, 7.0, 7.0, "ms")}
    own = {"latency_ms": Measurement(123.0, 120.0, 126.0, "ms", disturbed=True)}
    found = Latency().measure(replace(here, reference=dense, baseline=Baseline(here.runnable, own)))
    assert found is not None
    assert found.value == pytest.approx(123, rel=0.3)
    assert found.disturbed
    assert "baseline_slowdown" in found.conditions
    assert "slowdown" not in found.conditions


def test_baseline_is_confirmed_before_what_it_is_compared_with(tmp_path: Path) -> None:
    search = new_search(tmp_path)
    picked = search.run(8)
    baseline = picked[-1].candidate
    dispatcher = Recording()
    lane = Pipeline(dispatcher, "confirm")
    confirm(search.study, picked, lambda: lane, 0, baseline=baseline)
    order = list(dict.fromkeys(job.candidate for job in dispatcher.jobs))
    assert order[:2] == [picked[0].candidate, baseline]
    timings = [job.candidate for job in dispatcher.jobs if job.phase is Phase.TIMING]
    assert len(timings) == len(picked)
