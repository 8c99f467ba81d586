"""Load of processes that do not belong to the study."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import psutil

from paretoformer.evaluators.timing.conditions import Watch, busy_seconds, usable_processors

FOREIGN_CORES = 0.2
"""A timing is disturbed if other processes use more cores than this."""
GLANCE_SECONDS = 0.3
LOOK_SECONDS = 1.0
"""Seconds over which CPU use per process is observed."""
NAMED_CORES = 0.05
"""Processes that use fewer cores are not named."""

Process = tuple[int, float]
"""Process id and creation time: ids are reused."""


@dataclass(frozen=True)
class Load:
    """Cores that other processes use, on average.

    of: processors that this process may use. busiest: the process with the highest use; empty if it
    is not visible, as inside a container.
    """

    cores: float
    of: int
    busiest: str = ""

    @property
    def is_quiet(self) -> bool:
        return self.cores <= FOREIGN_CORES

    def __str__(self) -> str:
        """``1.0 of 2 cores used by `apt-cache` (pid 123)``."""
        return f"{self.cores:.1f} of {self.of} cores used by {self.busiest or 'other processes'}"


@dataclass(frozen=True)
class Use:
    """CPU time of one process since its start."""

    name: str
    parent: int
    seconds: float


Uses = Mapping[int, Use]


def look_around(driver: Process | None = None) -> Load:
    """Current load of other processes: a short look, and a longer one per process if not quiet.

    driver: the process that runs the study. It and its descendants do not count.
    """
    with Watch("cpu") as watch:
        time.sleep(GLANCE_SECONDS)
    load = Load(watch.conditions["foreign_cores"], len(usable_processors()))
    return load if load.is_quiet else _look_closely(driver)


def _look_closely(driver: Process | None) -> Load:
    start, busy, before = time.perf_counter(), busy_seconds(), _uses()
    time.sleep(LOOK_SECONDS)
    busy, after = busy_seconds() - busy, _uses()
    elapsed = time.perf_counter() - start
    return load_between(before, after, busy, elapsed, _own(driver))


def load_between(
    before: Uses, after: Uses, busy: float, elapsed: float, own: Iterable[int]
) -> Load:
    """Load of the processes that are neither `own` nor their descendants.

    busy: seconds of all processors between the two observations. elapsed: wall-clock seconds.
    """
    family = descendants(after, own)
    used = {pid: use.seconds - _seconds(before, pid) for pid, use in after.items()}
    ours = sum(seconds for pid, seconds in used.items() if pid in family)
    others = {pid: seconds / elapsed for pid, seconds in used.items() if pid not in family}
    busiest = max(others, key=lambda pid: others[pid], default=0)
    named = others.get(busiest, 0.0) >= NAMED_CORES
    return Load(
        cores=max(0.0, busy - ours) / elapsed,
        of=len(usable_processors()),
        busiest=f"`{after[busiest].name}` (pid {busiest})" if named else "",
    )


def descendants(uses: Uses, roots: Iterable[int]) -> set[int]:
    """The roots with their children, grandchildren and so on."""
    family: set[int] = set()
    new = set(roots)
    while new:
        family |= new
        new = {pid for pid, use in uses.items() if use.parent in new} - family
    return family


def _seconds(uses: Uses, pid: int) -> float:
    return uses[pid].seconds if pid in uses else 0.0


def _own(driver: Process | None) -> set[int]:
    """This process, and the driver if it runs on this machine."""
    own = {psutil.Process().pid}
    if driver is not None:
        with suppress(psutil.Error):
            if abs(psutil.Process(driver[0]).create_time() - driver[1]) < 1:
                own.add(driver[0])
    return own


def _uses() -> dict[int, Use]:
    uses = {}
    for process in psutil.process_iter(["name", "ppid", "cpu_times"]):
        name, parent, times = (process.info[key] for key in ("name", "ppid", "cpu_times"))
        if times is not None:  # None: access denied
            uses[process.pid] = Use(name or "?", parent or 0, times.user + times.system)
    return uses
