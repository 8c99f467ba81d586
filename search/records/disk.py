"""A full disk: found in any exception, and reported in one line that names the file system."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paretoformer.search.records.errors import DiskFull, ParetoformerError

NUMBERS = (errno.ENOSPC, errno.EDQUOT)
WORDS = (
    "no space left on device",
    "disk is full",  # SQLite, Ray
    "disk quota exceeded",
    "could not extend file",  # PostgreSQL
    "no usable temporary directory",  # Python, which tries to write into several
)
PERHAPS = "disk i/o error"
"""SQLite's message if its write-ahead log does not fit on the disk, but for other faults, too."""
NEARLY_NOTHING = 1_000_000
"""With fewer free bytes, `PERHAPS` means a full disk."""
REMEDY = "Make room there, and run the same command again: it goes on from what was finished."


@contextmanager
def room_on(*places: Path) -> Iterator[None]:
    """Within the block, any exception that a full disk caused becomes `DiskFull`.

    places: where files are written, apart from the temporary folder.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ParetoformerError) or not is_full(error, *places):
            raise
        raise DiskFull(f"{_described(_full_place(error, places))} {REMEDY}") from error


def is_full(error: BaseException, *places: Path) -> bool:
    """Whether an error, or one of its causes, is about a full disk."""
    said = [str(link).lower() for link in _chain(error)]
    if any(getattr(link, "errno", None) in NUMBERS for link in _chain(error)):
        return True
    return any(map(says_full, said)) or (
        any(PERHAPS in text for text in said)
        and any(_free(place) < NEARLY_NOTHING for place in places)
    )


def says_full(text: str) -> bool:
    return any(words in text.lower() for words in WORDS)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    left: BaseException | None = error
    while left is not None and id(left) not in seen:
        seen.add(id(left))
        yield left
        left = left.__cause__ or left.__context__


def _full_place(error: BaseException, places: tuple[Path, ...]) -> Path:
    """The file that an error names, or else the place with the least room."""
    for link in _chain(error):
        if isinstance(link, OSError) and link.errno in NUMBERS and isinstance(link.filename, str):
            return Path(link.filename)
    return min((*places, _temporary()), key=_free)


def _temporary() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:  # no candidate can be written
        return Path(os.environ.get("TMPDIR", "/tmp"))


def _free(place: Path) -> int:
    """Bytes; the place may not exist yet."""
    return shutil.disk_usage(_existing(place)).free


def _existing(place: Path) -> Path:
    """The place, or the nearest parent that exists."""
    there = place.absolute()
    while not there.exists():
        there = there.parent
    return there


def _described(place: Path) -> str:
    mount = _existing(place)
    while not mount.is_mount() and mount != mount.parent:
        mount = mount.parent
    usage = shutil.disk_usage(mount)
    return (
        f"no room is left on the file system at {mount}: {usage.free / 1e6:.3f} of "
        f"{usage.total / 1e6:,.1f} MB are free."
    )
