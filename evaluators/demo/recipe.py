"""A recipe prepares one demonstration; its cache folder is named after it."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from paretoformer.evaluators.common.progress import Progress
from paretoformer.evaluators.data.examples import Examples

SPLITS = ("train", "search", "confirm")


@dataclass(frozen=True)
class Recipe(ABC):
    """How one demonstration is prepared. A changed recipe gets a new cache folder."""

    @property
    def identity(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:8]

    @abstractmethod
    def parts(self) -> dict[str, Examples]:
        """Disjoint parts, with all of `SPLITS`; DemoError if a package is missing or changed."""

    @abstractmethod
    def make(self, folder: Path, progress: Progress) -> Mapping[str, Any]:
        """Write model and splits into a folder; return facts to store; DemoError if it fails."""


def split(examples: Examples, sizes: Mapping[str, int]) -> dict[str, Examples]:
    """Consecutive disjoint parts."""
    parts, start = {}, 0
    for name, size in sizes.items():
        parts[name] = examples.take(range(len(examples))[start : start + size])
        start += size
    return parts


def write_splits(parts: Mapping[str, Examples], folder: Path) -> None:
    """One Parquet file per split, with labels if there are any."""
    for name in SPLITS:
        columns: dict[str, Any] = {"text": list(parts[name].texts)}
        if parts[name].labelled:
            columns["label"] = list(parts[name].labels)
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
