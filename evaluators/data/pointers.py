"""Pointers that Git LFS leaves in the place of files that were not fetched."""

from __future__ import annotations

from pathlib import Path

POINTER = b"version https://git-lfs"


def is_pointer(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(POINTER)) == POINTER
