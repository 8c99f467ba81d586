"""Quiet: a timing waits until other processes leave the machine alone, as long as it may."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.timing.foreign_load import FOREIGN_CORES, Load, Process, look_around
from paretoformer.spaces.common.atomic import write_atomically

WAITING = "waiting for a quiet machine"
ATTEMPTS = 2
"""A disturbed timing is repeated at least once, also without time to wait."""


def _to_nobody(text: str) -> None:
    """Says nothing."""


@dataclass
class Quiet:
    """What the timings of one job wait for.

    seconds: how long they may, from the first wait on. tell: called with what is waited for, and
    with an empty text once the wait is over. look: what others do now. clock: seconds.
    waited: seconds so far.
    """

    seconds: float = 0.0
    tell: Callable[[str], None] = _to_nobody
    look: Callable[[], Load] = look_around
    clock: Callable[[], float] = time.monotonic
    waited: float = 0.0
    _until: float | None = field(default=None, repr=False)

    def wait(self) -> bool:
        """Whether the machine is quiet, by now or within what is left of the time."""
        begun = self.clock()
        self._until = begun + self.seconds if self._until is None else self._until
        if begun >= self._until:
            return False
        load = self.look()
        if load.is_quiet:
            return True
        while not load.is_quiet and self.clock() < self._until:
            self.tell(f"{WAITING}: {load}")
            load = self.look()
        self.tell("")
        self.waited += self.clock() - begun
        return load.is_quiet


@dataclass(frozen=True)
class Waiting:
    """How a job may wait for a quiet machine.

    seconds: at most. notice: a file that says what is waited for, while something is; empty: none.
    driver: the process that runs the study, which is not waited for.
    """

    seconds: float = 0.0
    notice: str = ""
    driver: Process | None = None

    def quiet(self) -> Quiet:
        return Quiet(self.seconds, self._tell, partial(look_around, self.driver))

    def _tell(self, text: str) -> None:
        """Nobody need read it: the driver may run on another machine."""
        if not self.notice:
            return
        path = Path(self.notice)
        with suppress(OSError):
            if not text:
                path.unlink(missing_ok=True)
                return
            write_atomically(path, text)


def read_notice(path: str) -> str:
    """What is waited for, as `Waiting` says it; empty where nothing is."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def measure_in_quiet(quiet: Quiet, once: Callable[[], Measurement]) -> Measurement:
    """Measure when the machine is quiet, and again where it did not stay so.

    What has to be accepted all the same is `disturbed`.

    once: its `conditions` say `foreign_cores`, those that others kept busy meanwhile.
    """
    quiet.wait()
    found = [once()]
    while is_crowded(found[-1]) and (quiet.wait() or len(found) < ATTEMPTS):
        found.append(once())
    best = min(found, key=lambda m: (is_crowded(m), not m.stable, m.foreign_cores))
    waited = {"waited_seconds": round(quiet.waited, 1)} if quiet.waited else {}
    conditions = {**best.conditions, **waited}
    return replace(best, disturbed=is_crowded(best), conditions=conditions)


def is_crowded(measured: Measurement) -> bool:
    """Whether others kept too many cores busy meanwhile."""
    return measured.foreign_cores > FOREIGN_CORES
