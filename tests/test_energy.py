"""Energy: readings less the idle power, on a stand-in for the counters."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.metrics import energy
from paretoformer.evaluators.metrics.energy import Energy
from tests.test_cost import bench, subject


class Counter:
    """5 W idle; every forward costs 3 mJ more."""

    def __init__(self) -> None:
        self.forwards = 0

    def begin_window(self, name: str) -> None:
        self.start, self.before = time.perf_counter(), self.forwards

    def end_window(self, name: str) -> Any:
        seconds = time.perf_counter() - self.start
        joules = 5 * seconds + 0.003 * (self.forwards - self.before)
        return SimpleNamespace(
            time=seconds, gpu_energy={}, cpu_energy={0: joules - 1}, dram_energy={0: 1.0}
        )


def test_energy_is_what_a_forward_adds_to_the_idle_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Counter()
    monkeypatch.setattr(energy, "SECONDS", 0.2)
    monkeypatch.setattr(energy, "_monitor", lambda target: counter)
    energy._idle_watts.cache_clear()
    here = subject(tmp_path)

    def count(*anything: object) -> None:
        counter.forwards += 1

    here.model.register_forward_pre_hook(count)
    measured = Energy().measure(bench(here))
    energy._idle_watts.cache_clear()
    assert measured.value == pytest.approx(3.0, rel=1e-6)
    assert len(measured.samples) == energy.READINGS
    assert measured.conditions["idle_watts"] == pytest.approx(5.0, rel=1e-3)


def test_machine_without_counters_says_so() -> None:
    reason = Energy().unavailable(Target())
    # Which of the two depends on the machine that runs this.
    assert not reason or "zeus" in reason or "RAPL" in reason
    assert "no energy counters for mps" in Energy().unavailable(Target("mps"))
