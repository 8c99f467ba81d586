"""Demonstration embedder: MiniLM unchanged, and sentences of real reviews."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paretoformer.evaluators.common.progress import Progress
from paretoformer.evaluators.data.examples import Examples
from paretoformer.evaluators.demo.assets import minilm, reviews
from paretoformer.evaluators.demo.recipe import Recipe, split, write_splits


@dataclass(frozen=True)
class Sentences(Recipe):
    """No training; the model is copied, because its package may be removed or change."""

    search: int
    confirm: int
    train: int
    seed: int = 0

    def parts(self) -> dict[str, Examples]:
        examples = reviews("rotten_tomatoes", self.seed)
        unlabelled = Examples(examples.texts, examples.pairs, (None,) * len(examples))
        sizes = {"search": self.search, "confirm": self.confirm, "train": self.train}
        return split(unlabelled, sizes)

    def make(self, folder: Path, progress: Progress) -> Mapping[str, Any]:
        shutil.copytree(minilm(), folder / "model")
        write_splits(self.parts(), folder)
        return {}
