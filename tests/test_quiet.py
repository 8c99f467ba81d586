"""A busy machine: what is waited for, how long, and what is said of a timing that ran beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.common.target import check_threads, physical_cores
from paretoformer.evaluators.metrics.latency import Latency
from paretoformer.evaluators.outcome import Outcome, Result
from paretoformer.evaluators.timing import conditions
from paretoformer.evaluators.timing import foreign_load as load
from paretoformer.evaluators.timing.foreign_load import (
    Load,
    Use,
    descendants,
    load_between,
    look_around,
)
from paretoformer.evaluators.timing.protocol import TimingProtocol
from paretoformer.evaluators.timing.quiet import (
    ATTEMPTS,
    Quiet,
    Waiting,
    measure_in_quiet,
    read_notice,
)
from paretoformer.search.dispatch.patience import Patience
from paretoformer.search.report.display import Display
from paretoformer.search.study.budget import patience_seconds
from paretoformer.search.study.spec import parse_spec
from tests.test_cost import bench, subject

TIMING_SECONDS = 10.0


@dataclass
class Machine:
    """Its neighbour is busy until `until`, and again in `later`; each look takes a second."""

    until: float
    later: tuple[float, float] = (0.0, 0.0)
    now: float = 0.0
    looks: int = 0
    said: list[str] = field(default_factory=list)

    @property
    def is_busy(self) -> bool:
        return self.now < self.until or self.later[0] <= self.now < self.later[1]

    def look(self) -> Load:
        self.looks += 1
        found = Load(float(self.is_busy), 2, "`apt-cache` (pid 123)")
        self.now += 1
        return found

    def time(self) -> Measurement:
        busy = float(self.is_busy)
        self.now += TIMING_SECONDS
        value = 15.0 if busy else 1.0
        return Measurement(value, value, value, "ms", conditions={"foreign_cores": busy})

    def quiet(self, seconds: float) -> Quiet:
        return Quiet(seconds, self.said.append, self.look, lambda: self.now)


def test_timing_waits_until_the_neighbour_ends_and_says_for_whom() -> None:
    machine = Machine(until=30)
    measured = measure_in_quiet(machine.quiet(600), machine.time)
    assert (measured.value, measured.disturbed) == (1.0, False)
    assert measured.conditions["waited_seconds"] == pytest.approx(30, abs=2)
    assert machine.said[0] == (
        "waiting for a quiet machine: 1.0 of 2 cores used by `apt-cache` (pid 123)"
    )
    assert machine.said[-1] == ""


def test_nothing_is_said_and_no_time_is_lost_on_a_quiet_machine() -> None:
    machine = Machine(until=0)
    measured = measure_in_quiet(machine.quiet(600), machine.time)
    assert not machine.said
    assert machine.looks == 1
    assert "waited_seconds" not in measured.conditions


def test_timing_that_was_disturbed_is_repeated_once_it_is_quiet_again() -> None:
    machine = Machine(until=0, later=(1, 40))  # begins after the look
    measured = measure_in_quiet(machine.quiet(600), machine.time)
    assert (measured.value, measured.disturbed) == (1.0, False)
    assert machine.now > 40


def test_load_for_ever_ends_with_the_patience_and_is_marked() -> None:
    machine = Machine(until=1e9)
    measured = measure_in_quiet(machine.quiet(60), machine.time)
    assert measured.disturbed
    assert 60 <= machine.now <= 60 + ATTEMPTS * TIMING_SECONDS + 1


def test_short_loads_between_looks_cannot_outlast_the_patience() -> None:
    machine = Machine(until=1e9)
    quiet = replace(machine.quiet(100), look=lambda: Load(0.0, 2))  # it is never busy then
    assert measure_in_quiet(quiet, machine.time).disturbed
    assert machine.now <= 100 + TIMING_SECONDS


def test_without_patience_a_disturbed_timing_is_repeated_once_and_nobody_looks() -> None:
    machine = Machine(until=5)
    measured = measure_in_quiet(machine.quiet(0), machine.time)
    assert (measured.value, measured.disturbed) == (1.0, False)
    assert machine.looks == 0
    machine = Machine(until=1e9)
    assert measure_in_quiet(machine.quiet(0), machine.time).disturbed
    assert machine.now == ATTEMPTS * TIMING_SECONDS


def timed_beside(cores: float) -> Result:
    measured = Measurement(1, 1, 1, "ms", conditions={"foreign_cores": cores}, disturbed=True)
    return Result(Outcome.OK, {"latency_ms": measured, "accuracy": Measurement.exact(1, "")})


def test_load_for_ever_costs_its_patience_once_not_for_each_timing() -> None:
    patience, waited = Patience(600.0), 0.0
    for _ in range(34):
        waited += patience.seconds
        patience.learn(timed_beside(1.0))
    assert waited < 600 * 1.5


def test_patience_is_full_again_after_a_timing_on_a_quiet_machine() -> None:
    patience = Patience(600.0)
    patience.learn(timed_beside(1.0))
    patience.learn(Result(Outcome.ERROR))  # which tells nothing
    assert patience.seconds < 600
    patience.learn(timed_beside(0.1))  # though its reference was disturbed
    assert patience.seconds == 600


def test_budget_of_minutes_is_not_waited_away() -> None:
    text = "[model]\npath = 'm'\n[data]\npath = 'd'\n[timing]\npatience_minutes = 10\n"
    assert patience_seconds(parse_spec(text, source=Path("a.toml"))) == 600
    limited = parse_spec(text + "[search]\nminutes = 20\n", source=Path("a.toml"))
    assert patience_seconds(limited) == 120


USES = {
    1: Use("systemd", 0, 50.0),
    10: Use("paretoformer", 1, 5.0),
    11: Use("raylet", 10, 1.0),
    12: Use("ray::_Worker", 11, 8.0),
    20: Use("apt-cache", 1, 2.0),
    21: Use("sshd", 1, 1.0),
}


def test_driver_and_its_workers_are_not_foreign() -> None:
    assert descendants(USES, [10]) == {10, 11, 12}
    after = {pid: replace(use, seconds=use.seconds + 0.01) for pid, use in USES.items()}
    after[10] = replace(USES[10], seconds=5.6)
    after[12] = replace(USES[12], seconds=9.0)
    after[20] = replace(USES[20], seconds=2.9)
    found = load_between(USES, after, busy=2.55, elapsed=1.0, own=[10])
    assert found.cores == pytest.approx(0.94)
    assert found.busiest == "`apt-cache` (pid 20)"
    assert not found.is_quiet


def test_load_of_processes_that_cannot_be_seen_has_no_name() -> None:
    found = load_between(USES, USES, busy=2.0, elapsed=2.0, own=[10])
    assert str(found).startswith("1.0 of ")
    assert str(found).endswith(" cores used by other processes")


@pytest.mark.skipif(os.name != "posix", reason="needs a shell that leaves its child alone")
def test_busy_process_of_others_is_seen() -> None:
    spin = "import time\nend = time.time() + 20\nwhile time.time() < end: pass"
    shell = f"{sys.executable} -c '{spin}' > /dev/null 2>&1 & echo $!"  # no child of this process
    pid = int(subprocess.run(["sh", "-c", shell], capture_output=True, check=True).stdout)
    try:
        time.sleep(0.5)
        found = look_around()
        ours = load._look_closely((pid, psutil.Process(pid).create_time()))
    finally:
        os.kill(pid, signal.SIGKILL)
    assert not found.is_quiet
    assert "(pid " in found.busiest
    assert f"(pid {pid})" not in ours.busiest


def test_glance_at_a_quiet_machine_asks_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "_cpu_seconds", lambda: (10.0, 3.0, 0.0))
    monkeypatch.setattr(load, "_uses", lambda: pytest.fail("nobody need be told apart"))
    assert look_around().is_quiet


def test_only_processors_that_may_be_used_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    usable = conditions.usable_processors()
    every = psutil.cpu_times(percpu=True)
    busy = every[0]._replace(user=1e9)
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: [*every, busy])
    assert len(conditions._processor_times()) == len(usable)
    assert conditions.busy_seconds() < 1e9


def test_notice_lies_in_its_file_while_something_is_waited_for(tmp_path: Path) -> None:
    notice = str(tmp_path / "waiting")
    quiet = Waiting(60.0, notice).quiet()
    assert read_notice(notice) == ""
    quiet.tell("waiting for a quiet machine: 1.0 of 2 cores used by other processes")
    assert read_notice(notice).startswith("waiting for a quiet machine: 1.0 of 2")
    quiet.tell("")
    assert read_notice(notice) == ""
    quiet.tell("")


def test_notice_that_cannot_be_written_stops_no_timing(tmp_path: Path) -> None:
    Waiting(60.0, str(tmp_path / "gone" / "waiting")).quiet().tell("waiting")
    Waiting(60.0).quiet().tell("waiting")


def test_display_says_what_is_waited_for_once_and_for_how_long_it_was(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Display() as display:
        display.waiting("waiting for a quiet machine: 1.0 of 2 cores used by `a` (pid 1)")
        display.waiting("waiting for a quiet machine: 0.9 of 2 cores used by `a` (pid 1)")
        display.waiting("")
        display.waiting("")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "Waiting for a quiet machine: 1.0 of 2 cores used by `a` (pid 1)",
        "Waited 0 s for a quiet machine.",
    ]


def test_timing_that_refers_to_a_disturbed_one_is_disturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Latency, "_once", lambda self, *_: Machine(until=0).time())
    dense = Measurement(1, 1, 1, "ms")
    here = replace(bench(subject(tmp_path)), protocol=TimingProtocol())
    for disturbed in (False, True):
        reference = {"latency_ms": replace(dense, disturbed=disturbed)}
        measured = Latency().measure(replace(here, reference=reference))
        assert measured.disturbed is disturbed


def test_disturbed_is_kept_in_json_and_was_not_known_before() -> None:
    measured = Measurement(1, 1, 1, "ms", disturbed=True)
    assert Measurement.from_dict(measured.to_dict()) == measured
    before = Measurement(1, 1, 1, "ms").to_dict()
    assert "disturbed" not in before  # as version 1 wrote it
    assert not Measurement.from_dict(before).disturbed


def test_cores_are_those_that_a_limit_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # joblib's own name for a quota
    assert physical_cores() == 1
    with pytest.raises(ValueError, match="threads is 2, but this process may use 1 physical core:"):
        check_threads(2)
    check_threads(1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux has it")
def test_cores_are_those_of_the_affinity() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert physical_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
