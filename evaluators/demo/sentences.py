"""A demonstration of an embedder: MiniLM as it is, and the sentences of real reviews."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paretoformer.evaluators.common.progress import Progress
from paretoformer.evaluators.demo.assets import minilm
from paretoformer.evaluators.demo.recipe import Unlabelled, write_splits


@dataclass(frozen=True)
class Sentences(Unlabelled):
    """No training: the model is copied, since its package may be removed or change."""

    source = "rotten_tomatoes"

    def make(self, folder: Path, progress: Progress) -> Mapping[str, Any]:
        shutil.copytree(minilm(), folder / "model")
        write_splits(self.parts(), folder)
        return {}
