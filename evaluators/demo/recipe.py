"""What every demonstration is made by: a recipe, from which its cache folder gets its name."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from paretoformer.evaluators.common.progress import Progress
from paretoformer.evaluators.data.examples import Examples
from paretoformer.evaluators.demo.assets import Source, reviews

SPLITS = ("train", "search", "confirm")


@dataclass(frozen=True)
class Recipe(ABC):
    """How one demonstration is made. A changed recipe gets a cache folder of its own."""

    @property
    def identity(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:8]

    @abstractmethod
    def make(self, folder: Path, progress: Progress) -> Mapping[str, Any]:
        """Write a model and its splits into a folder; what is worth knowing about it.

        Raises:
            DemoError: it cannot be made.
        """


class TextRecipe(Recipe):
    """Of a demonstration whose data are texts."""

    @abstractmethod
    def parts(self) -> Mapping[str, Examples]:
        """Disjoint parts of the texts, `SPLITS` among them.

        Raises:
            DemoError: a package is missing or changed.
        """


@dataclass(frozen=True)
class Unlabelled(TextRecipe):
    """Of a demonstration without labels, on reviews of one source."""

    search: int
    confirm: int
    train: int
    seed: int = 0
    source: ClassVar[Source]

    def parts(self) -> dict[str, Examples]:
        found = reviews(self.source, self.seed)
        without = Examples(found.texts, found.pairs, (None,) * len(found))
        sizes = {"search": self.search, "confirm": self.confirm, "train": self.train}
        return split(without, sizes)


def split(examples: Examples, sizes: Mapping[str, int]) -> dict[str, Examples]:
    """Disjoint parts, one after the other."""
    parts, start = {}, 0
    for name, size in sizes.items():
        parts[name] = examples.take(range(len(examples))[start : start + size])
        start += size
    return parts


def write_splits(parts: Mapping[str, Examples], folder: Path) -> None:
    """One Parquet file for each split, with labels where there are any."""
    for name in SPLITS:
        columns: dict[str, Any] = {"text": list(parts[name].texts)}
        if parts[name].labelled:
            columns["label"] = list(parts[name].labels)
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
