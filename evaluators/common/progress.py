"""Progress of slow work, as whoever does it reports it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with (what is going on, steps done, steps in all)."""


def silent(what: str, done: int, total: int) -> None:
    """Reports nothing."""
