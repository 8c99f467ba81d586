"""Progress reports of slow work."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with (name of the activity, steps done, total steps)."""


def silent(what: str, done: int, total: int) -> None:
    """Reports nothing."""
