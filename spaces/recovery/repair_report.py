"""The effect of a recovery on a candidate, stored with its artifact."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from paretoformer.spaces.common.malformed import MALFORMED, json_object

FILE = "recovery.json"


@dataclass(frozen=True)
class Recovered:
    """before, after: nats between the model's outputs and the dense model's, on held-out texts.

    seconds: its duration. strength: applied fraction of the repair, 0 to 1; of a distillation 1.
    by_labels: whether it learned from labels, too.
    """

    before: float
    after: float
    seconds: float
    strength: float = 1.0
    by_labels: bool = False

    def write(self, folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Recovered | None:
        """Read it from a folder; None if it is missing or unreadable."""
        try:
            facts = json_object((folder / FILE).read_bytes())
            by_labels = bool(facts.pop("by_labels", False))
            numbers = {name: float(value) for name, value in facts.items()}
            return cls(**numbers, by_labels=by_labels)
        except (OSError, *MALFORMED):
            return None
