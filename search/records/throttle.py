"""A throttle: work that grows with the number of trials takes under a twentieth of the time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

PAUSE = 20
"""Minimum pause, as a multiple of the time that the last call took."""


@dataclass
class Throttle:
    """Calls a function now or later; of postponed calls only the last one is made."""

    _next_time: float = 0.0
    _pending: Callable[[], None] | None = None

    def __call__(self, do: Callable[[], None]) -> None:
        self._pending = do
        if time.monotonic() >= self._next_time:
            self.catch_up()

    def catch_up(self) -> None:
        """Make the pending call now."""
        if self._pending is None:
            return
        do, self._pending = self._pending, None
        start = time.monotonic()
        do()
        end = time.monotonic()
        self._next_time = end + PAUSE * (end - start)
