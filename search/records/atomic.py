"""Files that appear whole or not at all, whatever ends the process that writes them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write beside, flush to the disk, then rename over."""
    replace_whole(path, lambda beside: _write_text(beside, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def replace_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Have `write` make the file under another name, then rename it over; where that fails, nothing
    is left of it."""
    beside = path.with_name(f".{path.name}.part")
    try:
        write(beside)
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
