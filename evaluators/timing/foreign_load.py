"""Load: what other processes than those of the study do on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import psutil

from paretoformer.evaluators.timing.conditions import Watch, busy_seconds, usable_processors

FOREIGN_CORES = 0.2
"""Others that keep more cores than this busy disturb a timing."""
GLANCE_SECONDS = 0.3
LOOK_SECONDS = 1.0
"""How long processes are watched to tell who is busy."""
NAMED_CORES = 0.05
"""A process that uses less than this is not named."""

Process = tuple[int, float]
"""Process id and creation time: together they name one process for good."""


@dataclass(frozen=True)
class Load:
    """The cores that other processes keep busy, on average.

    of: processors that this process may use. busiest: the process that uses most; empty where it
    cannot be seen from here, as from inside a container.
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
    """What one process has used of the processors since it began."""

    name: str
    parent: int
    seconds: float


Uses = Mapping[int, Use]
"""Process id -> what it used."""


def look_around(driver: Process | None = None) -> Load:
    """What others do now: a glance, and a longer look at each process where it is not quiet.

    driver: the process that runs the study. Neither it nor its descendants are others.
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
    """The load of those that are neither `own` nor descend from them.

    busy: seconds of all processors together, between the two; elapsed: seconds of the clock.
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
    """These processes with their children, the children of those, and so on."""
    found: set[int] = set()
    new = set(roots)
    while new:
        found |= new
        new = {pid for pid, use in uses.items() if use.parent in new} - found
    return found


def _seconds(uses: Uses, pid: int) -> float:
    return uses[pid].seconds if pid in uses else 0.0


def _own(driver: Process | None) -> set[int]:
    """This process, and the driver where it runs on this machine."""
    own = {psutil.Process().pid}
    if driver is not None:
        with suppress(psutil.Error):
            if abs(psutil.Process(driver[0]).create_time() - driver[1]) < 1:
                own.add(driver[0])
    return own


def _uses() -> dict[int, Use]:
    found = {}
    for process in psutil.process_iter(["name", "ppid", "cpu_times"]):
        name, parent, times = (process.info[key] for key in ("name", "ppid", "cpu_times"))
        if times is not None:  # else we may not see it
            found[process.pid] = Use(name or "?", parent or 0, times.user + times.system)
    return found
