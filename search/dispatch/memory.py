"""Memory for data that a driver shares with its workers."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
COPIES = 2
"""Shared data is in memory twice: while it is serialised, and in Ray's object store."""


def room_after(nbytes: int) -> int:
    """Bytes left once `nbytes` are shared; negative if they do not fit."""
    return available_memory() - COPIES * nbytes


def available_memory() -> int:
    """Bytes that this machine, or its container's limit, still allows."""
    available = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):  # no container, or its limit is the word `max`
        limit, used = (int((CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        available = min(available, max(0, limit - used))
    return available
