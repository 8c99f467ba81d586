"""The latency protocol: alternation, when it ends, what it records."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paretoformer.evaluators.timing import conditions, intervals, protocol
from paretoformer.evaluators.timing.conditions import Watch
from paretoformer.evaluators.timing.intervals import Reference, Timed, summary, undelayed
from paretoformer.evaluators.timing.protocol import (
    TimingProtocol,
    time_alone,
    time_interleaved,
    warm_up,
)
from paretoformer.evaluators.timing.threads import set_threads, threads_in_use


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "WARM_UP_SECONDS", 0.0)
    monkeypatch.setattr(protocol, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(protocol, "BLOCK_SECONDS", 0.01)


def drifting(start: float, speed: float, state: list[float]) -> float:
    """A machine that gets slower with every call."""
    state[0] += speed
    return start * (1 + state[0])


@pytest.mark.usefixtures("quick")
def test_drift_of_the_machine_cancels() -> None:
    state = [0.0]
    timed = time_interleaved(
        lambda: drifting(20.0, 0.01, state),
        lambda: drifting(10.0, 0.01, state),
        TimingProtocol(width=1e-9, seconds=0.01),
        reference=Reference(20.0),
    )
    assert len(timed.samples) >= intervals.ROUNDS
    np.testing.assert_allclose(timed.samples, 10.0, rtol=1e-3)


@dataclass
class Machine:
    """Slow in `slow` of every `period` seconds: blocks of the dense model are then delayed by the
    factor `delay`, those of the candidate by 1.5 times that factor."""

    period: float
    slow: float
    delay: float
    now: float = 0.0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def run(self, seconds: float, delay: float) -> float:
        disturbed = self.now % self.period < self.slow
        took = seconds * (delay if disturbed else 1.0) * float(self.rng.normal(1.0, 0.01))
        self.now += took
        return took * 1e3

    def dense(self) -> float:
        return self.run(0.02, self.delay)

    def candidate(self) -> float:
        return self.run(0.01, 1.5 * self.delay)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, quick: None) -> Machine:
    made = Machine(period=6.0, slow=3.0, delay=5.0)
    monkeypatch.setattr(protocol.time, "perf_counter", lambda: made.now)
    return made


def test_delayed_rounds_do_not_count(machine: Machine) -> None:
    long = TimingProtocol(width=0.0, seconds=6.0)
    dense = time_alone(machine.dense, long)
    np.testing.assert_allclose(dense.samples, 20.0, rtol=0.05)
    assert dense.left_out > 0.1
    timed = time_interleaved(machine.dense, machine.candidate, long, reference=Reference(20.0))
    np.testing.assert_allclose(timed.samples, 10.0, rtol=0.05)
    assert 0.05 < timed.left_out < 0.5
    assert summary(timed).stable


def test_a_machine_that_is_always_slow_is_reported(machine: Machine) -> None:
    machine.slow, machine.delay = machine.period, 1.3
    timed = time_interleaved(
        machine.dense, machine.candidate, TimingProtocol(0.02, 0.5), Reference(20.0)
    )
    measured = summary(timed)
    assert measured.conditions["slowdown"] == pytest.approx(1.3, rel=0.01)
    assert measured.conditions["left_out"] == 0.0
    assert measured.value == pytest.approx(15.0, rel=0.01)


def test_a_timing_ends_in_time_where_many_rounds_are_delayed(machine: Machine) -> None:
    machine.period, machine.slow = 0.5, 0.25
    short = TimingProtocol(width=0.02, seconds=0.5)
    timed = time_interleaved(machine.dense, machine.candidate, short, reference=Reference(20.0))
    assert machine.now < (1 + protocol.PATIENCE) * short.seconds + 3
    assert timed.left_out > 0.2
    np.testing.assert_allclose(timed.samples, 10.0, rtol=0.05)


@given(st.lists(st.floats(0.9, 1.3), min_size=2, max_size=60))
def test_rounds_are_not_chosen_by_noise(times: list[float]) -> None:
    assert undelayed(np.array(times)).all()


@given(
    st.lists(st.floats(0.95, 1.05), min_size=7, max_size=60),
    st.lists(st.floats(2.0, 50.0), min_size=0, max_size=12),
)
def test_delayed_rounds_are_found_if_a_third_was_on_time(
    quiet: list[float], slow: list[float]
) -> None:
    times = np.array([*slow, *quiet])
    np.testing.assert_array_equal(undelayed(times), times < 1.5)
    other = np.full((len(times), 2), 3.0)
    np.testing.assert_array_equal(undelayed(other, times), times < 1.5)


@pytest.mark.usefixtures("quick")
def test_timing_ends_when_its_interval_is_narrow() -> None:
    steady: Iterator[float] = iter([1.0, 1.001] * 1000)
    timed = time_interleaved(
        lambda: 1.0, lambda: next(steady), TimingProtocol(0.02, 60.0), reference=Reference(1.0)
    )
    assert len(timed.samples) == intervals.ROUNDS


@pytest.mark.usefixtures("quick")
def test_timing_ends_when_its_time_is_spent() -> None:
    rng = np.random.default_rng(0)

    def noisy() -> float:
        time.sleep(0.0005)
        return float(rng.uniform(0.5, 2.0))

    start = time.monotonic()
    timed = time_interleaved(
        lambda: 1.0, noisy, TimingProtocol(0.001, 0.2), reference=Reference(1.0)
    )
    assert time.monotonic() - start < 5
    assert len(timed.samples) > intervals.ROUNDS


def test_warm_up_is_ten_runs_and_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [0, 0]
    monkeypatch.setattr(protocol, "WARM_UP_SECONDS", 0.05)

    def each(index: int) -> float:
        runs[index] += 1
        time.sleep(0.001)
        return 1.0

    start = time.monotonic()
    warm_up(lambda: each(0), lambda: each(1))
    assert min(runs) >= protocol.WARM_UP_RUNS
    assert time.monotonic() - start >= 0.05


def test_interval_holds_what_a_second_timing_gives_in_95_of_100() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        sessions = 10.0 * rng.normal(1.0, intervals.SESSION / 2**0.5, size=2)
        one, other = (Timed(each * rng.lognormal(0.0, 0.05, size=15)) for each in sessions)
        held += summary(one).low <= other.mean <= summary(one).high
    assert 930 <= held <= 970


def test_stable_timing_is_told_from_a_scattered_one() -> None:
    assert summary(Timed(np.linspace(10.0, 10.5, 20))).stable
    assert summary(Timed(np.array([10.0, 12.0] * 5))).stable
    assert not summary(Timed(np.array([10.0, 14.0] * 5))).stable
    assert not summary(Timed(np.full(20, 10.0), left_out=0.5)).stable
    assert not summary(Timed(np.full(3, 10.0))).stable


def test_interval_holds_what_no_number_of_rounds_shows() -> None:
    measured = summary(Timed(np.full(100, 10.0)))
    assert measured.low == pytest.approx(10.0 * (1 - 1.96 * intervals.SESSION))
    assert measured.high == pytest.approx(10.0 * (1 + 1.96 * intervals.SESSION))


@pytest.mark.parametrize(("slowdown", "between"), [(1.05, 0.03), (1.3, 0.264), (0.77, 0.03)])
def test_interval_is_wider_while_the_machine_is_slower(slowdown: float, between: float) -> None:
    dense = np.full((8, 2), 10.0 * slowdown)
    timed = Timed.of_rounds(dense, dense / 5, reference=Reference(10.0))
    assert timed.mean == pytest.approx(2.0)
    assert timed.between == pytest.approx(between, abs=0.001)


def test_watch_sees_a_foreign_load() -> None:
    spin = "import time\nend = time.time() + 1.5\nwhile time.time() < end: pass"
    other = subprocess.Popen([sys.executable, "-c", spin])
    time.sleep(0.3)
    with Watch("cpu") as busy:
        time.sleep(0.7)
    other.wait()
    assert busy.conditions["foreign_cores"] > 0.5


def test_watch_does_not_count_its_own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([(10.0, 3.0, 1.0), (10.5, 3.5, 1.0)])  # all, own, stolen: seconds
    monkeypatch.setattr(conditions, "_cpu_seconds", lambda: next(readings))
    with Watch("cpu") as watch:
        time.sleep(0.01)
    assert watch.conditions == {"foreign_cores": 0.0, "stolen_cores": 0.0}


def test_threads_of_every_library_are_set_and_told() -> None:
    before = torch.get_num_threads()
    try:
        set_threads(1)
        assert set(threads_in_use().values()) == {1}
    finally:
        set_threads(before)


def test_threads_that_cannot_be_had_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    wanted = torch.get_num_threads() + 1
    with pytest.raises(RuntimeError, match=f"the study asks for {wanted} threads, but here torch"):
        set_threads(wanted)
