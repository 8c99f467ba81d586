"""What grows with the number of trials is done seldom: under a twentieth of the time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

REST = 20
"""How many times as long as it took, something is not done again."""


@dataclass
class Seldom:
    """Does what it is given, or puts it off; only the last thing that was put off counts."""

    _due: float = 0.0
    _left: Callable[[], None] | None = None

    def __call__(self, do: Callable[[], None]) -> None:
        self._left = do
        if time.monotonic() >= self._due:
            self.catch_up()

    def catch_up(self) -> None:
        """Do now what was put off."""
        if self._left is None:
            return
        do, self._left = self._left, None
        start = time.monotonic()
        do()
        end = time.monotonic()
        self._due = end + REST * (end - start)
