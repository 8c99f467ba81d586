"""Wait for a quiet machine before a timing, up to a limit."""

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
"""A disturbed timing is repeated at least once, even if no waiting time is left."""


def _to_nobody(text: str) -> None:
    """Says nothing."""


@dataclass
class Quiet:
    """Waits for a quiet machine, for all timings of one job.

    seconds: total limit, from the first wait on. tell: called with the reason for waiting, and with
    "" when the wait ends. look: returns the current load. clock: seconds. waited: seconds so far.
    """

    seconds: float = 0.0
    tell: Callable[[str], None] = _to_nobody
    look: Callable[[], Load] = look_around
    clock: Callable[[], float] = time.monotonic
    waited: float = 0.0
    _until: float | None = field(default=None, repr=False)

    def wait(self) -> bool:
        """Wait while time is left; return whether the machine is quiet."""
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

    seconds: limit. notice: file that holds the reason during a wait; "": none. driver: the process
    that runs the study, which does not count as load.
    """

    seconds: float = 0.0
    notice: str = ""
    driver: Process | None = None

    def quiet(self) -> Quiet:
        return Quiet(self.seconds, self._tell, partial(look_around, self.driver))

    def _tell(self, text: str) -> None:
        """Errors are ignored: the driver may run on another machine."""
        if not self.notice:
            return
        path = Path(self.notice)
        with suppress(OSError):
            if not text:
                path.unlink(missing_ok=True)
                return
            write_atomically(path, text)


def read_notice(path: str) -> str:
    """The reason for waiting that `Waiting` wrote; empty if there is none."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def measure_in_quiet(quiet: Quiet, once: Callable[[], Measurement]) -> Measurement:
    """Measure on a quiet machine, and again if it did not stay quiet.

    If no attempt was quiet, the best one is marked `disturbed`. once: sets `foreign_cores` in
    `conditions`.
    """
    quiet.wait()
    attempts = [once()]
    while is_crowded(attempts[-1]) and (quiet.wait() or len(attempts) < ATTEMPTS):
        attempts.append(once())
    best = min(attempts, key=lambda m: (is_crowded(m), not m.stable, m.foreign_cores))
    waited = {"waited_seconds": round(quiet.waited, 1)} if quiet.waited else {}
    conditions = {**best.conditions, **waited}
    return replace(best, disturbed=is_crowded(best), conditions=conditions)


def is_crowded(measured: Measurement) -> bool:
    """Whether other processes used too many cores meanwhile."""
    return measured.foreign_cores > FOREIGN_CORES
