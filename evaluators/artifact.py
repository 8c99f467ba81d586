"""Artifacts: the files of a built candidate that are expensive to build again.

Scoring, timing, confirmation and export all use them, so they all see the same weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from paretoformer.spaces.axes import axes
from paretoformer.spaces.candidate import Candidate


@dataclass(frozen=True)
class Artifact:
    """files: path relative to the artifact's folder -> contents."""

    files: Mapping[str, bytes]

    @classmethod
    def read(cls, folder: Path) -> Artifact:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return cls({path.relative_to(folder).as_posix(): path.read_bytes() for path in paths})

    def write(self, folder: Path) -> None:
        for name, contents in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(contents)

    @property
    def digest(self) -> str:
        """SHA-256 over names and contents."""
        digest = hashlib.sha256()
        for name in sorted(self.files):
            digest.update(name.encode())
            digest.update(self.files[name])
        return digest.hexdigest()


def needs_artifact(candidate: Candidate) -> bool:
    """Whether a second build would take time, or might produce other weights."""
    return not all(axis.is_free(candidate[axis.name]) for axis in axes())


def workspace(folder: Path, candidate: Candidate) -> Path:
    """Folder of a candidate's unfinished build."""
    return folder / f".{candidate.id}.work"
