"""The latency protocol: alternation, when it ends, what it records."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paretoformer.evaluators import conditions, latency
from paretoformer.evaluators.conditions import Watch, set_threads, threads_in_use
from paretoformer.evaluators.latency import TimingProtocol, median_interval, summary
from paretoformer.evaluators.measurement import Measurement, samples_for


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "WARM_UP_SECONDS", 0.0)


def drifting(start: float, speed: float, state: list[float]) -> float:
    """A machine that gets slower with every call."""
    state[0] += speed
    return start * (1 + state[0])


@pytest.mark.usefixtures("quick")
def test_drift_of_the_machine_cancels() -> None:
    state = [0.0]
    ratios = latency._interleaved(
        lambda: drifting(20.0, 0.01, state),
        lambda: drifting(10.0, 0.01, state),
        TimingProtocol(width=1e-9, seconds=0.01),
    )
    assert len(ratios) >= latency.ROUNDS
    np.testing.assert_allclose(ratios, 0.5, rtol=1e-3)


@pytest.mark.usefixtures("quick")
def test_timing_ends_when_its_interval_is_narrow() -> None:
    steady: Iterator[float] = iter([1.0, 1.001] * 1000)
    samples = latency._until_narrow(lambda: next(steady), TimingProtocol(0.02, 60.0))
    assert len(samples) == latency.ROUNDS


@pytest.mark.usefixtures("quick")
def test_timing_ends_when_its_time_is_spent() -> None:
    rng = np.random.default_rng(0)

    def noisy() -> float:
        time.sleep(0.002)
        return float(rng.uniform(0.5, 2.0))

    start = time.monotonic()
    samples = latency._until_narrow(noisy, TimingProtocol(0.001, 0.2))
    assert time.monotonic() - start < 5
    assert len(samples) > latency.ROUNDS
    assert not summary(samples, 0.001).stable


def test_warm_up_is_ten_runs_and_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [0, 0]
    monkeypatch.setattr(latency, "WARM_UP_SECONDS", 0.05)

    def each(index: int) -> float:
        runs[index] += 1
        time.sleep(0.001)
        return 1.0

    start = time.monotonic()
    latency._warm_up(lambda: each(0), lambda: each(1))
    assert min(runs) >= latency.WARM_UP_RUNS
    assert time.monotonic() - start >= 0.05


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=60))
def test_median_lies_in_its_interval(samples: list[float]) -> None:
    low, median, high = median_interval(np.array(samples))
    assert min(samples) <= low <= median <= high <= max(samples)


def test_median_interval_holds_the_median_in_95_of_100_samples() -> None:
    rng = np.random.default_rng(0)
    true = np.exp(0.0)
    held = 0
    for _ in range(1000):
        low, _, high = median_interval(rng.lognormal(0.0, 0.2, size=25))
        held += low <= true <= high
    assert held >= 940


def test_stable_timing_is_told_from_a_jumping_one() -> None:
    assert summary(np.linspace(10.0, 10.5, 20), 0.02).stable
    assert summary(np.array([10.0] * 19 + [11.5]), 0.02).stable  # narrow before its time was spent
    assert not summary(np.array([*np.linspace(10.0, 10.5, 19), 11.5]), 0.02).stable
    assert not summary(np.array([10.0, 12.0] * 10), 0.02).stable


def test_99th_percentile_needs_662_samples() -> None:
    assert samples_for(0.99) == 662
    few = Measurement(1, 1, 1, "ms", samples=(1.0,) * 661)
    with pytest.raises(ValueError, match="99% percentile needs 662 samples, but there are 661"):
        few.percentile(0.99)
    many = Measurement(1, 1, 1, "ms", samples=tuple(float(each) for each in range(1000)))
    assert many.percentile(0.99) == 990


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
