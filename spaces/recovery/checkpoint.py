"""Checkpoints of a training: tensors and scalars from which it goes on, and its progress."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from paretoformer.spaces.common.atomic import atomic_file, write_atomically

CHECKPOINT = "checkpoint.safetensors"
PROGRESS = "progress.json"
_FACTS = "facts"


@dataclass(frozen=True)
class Workspace:
    """The folder of one training; None: it keeps nothing, and starts over.

    A failure to write, such as a full disk, does not end the training.
    """

    folder: Path | None

    def write(self, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
        """Replace the checkpoint. facts: JSON."""
        contiguous = {name: each.contiguous() for name, each in tensors.items()}

        def save(folder: Path) -> None:
            with atomic_file(folder / CHECKPOINT) as part:
                save_file(contiguous, str(part), metadata={_FACTS: json.dumps(facts)})

        self._keep(save)

    def read(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Tensors and facts of the checkpoint; None if there is none that can be read."""
        if self.folder is None:
            return None
        try:
            with safe_open(str(self.folder / CHECKPOINT), "pt") as file:
                facts = json.loads((file.metadata() or {})[_FACTS])
                names = file.keys()
                return {name: file.get_tensor(name) for name in names}, facts
        except (OSError, SafetensorError, KeyError, ValueError):
            return None

    def report(self, seconds: float, of: float, divergence: float) -> None:
        """Write the progress, for `read_progress`."""
        facts = {"seconds": seconds, "of": of, "divergence": divergence}
        self._keep(lambda folder: write_atomically(folder / PROGRESS, json.dumps(facts)))

    def _keep(self, write: Callable[[Path], None]) -> None:
        if self.folder is None:
            return
        with suppress(OSError, SafetensorError):
            self.folder.mkdir(parents=True, exist_ok=True)
            write(self.folder)


def read_progress(folder: Path) -> dict[str, float] | None:
    """Seconds trained, seconds in total, divergence of the kept weights; None if unknown."""
    try:
        found: dict[str, float] = json.loads((folder / PROGRESS).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found
