"""Head masks: which attention heads of each layer stay.

True keeps a head, everywhere in this project.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]
"""Head scores: (layers, heads), larger matters more."""


@dataclass(frozen=True)
class HeadMask:
    """The kept heads of every layer: one row per layer, one bool per head.

    Raises:
        ValueError: there is no layer, or the layers differ in their number of heads.
    """

    kept: tuple[tuple[bool, ...], ...]

    def __post_init__(self) -> None:
        kept = tuple(tuple(bool(head) for head in row) for row in self.kept)
        widths = {len(row) for row in kept}
        if len(widths) != 1 or widths == {0}:
            raise ValueError(
                f"a head mask needs layers of one common number of heads, but got {sorted(widths)}."
            )
        object.__setattr__(self, "kept", kept)

    @classmethod
    def all(cls, layers: int, heads: int) -> HeadMask:
        return cls(((True,) * heads,) * layers)

    @classmethod
    def none(cls, layers: int, heads: int) -> HeadMask:
        """The mask that keeps nothing; attention adds a constant in every layer."""
        return cls(((False,) * heads,) * layers)

    @classmethod
    def ranked(cls, counts: Sequence[int], scores: Scores) -> HeadMask:
        """Keep the `counts[layer]` best heads of each layer; ties go to the lower head index.

        scores: (layers, heads), larger matters more.
        """
        if len(counts) != len(scores):
            raise ValueError(
                f"counts need one number for each of the {len(scores)} layers, got {len(counts)}."
            )
        orders = np.argsort(-scores, axis=1, kind="stable")
        rows = []
        for count, order in zip(counts, orders, strict=True):
            best = set(order[:count].tolist())
            rows.append(tuple(head in best for head in range(scores.shape[1])))
        return cls(tuple(rows))

    @classmethod
    def most_important(cls, count: int, scores: Scores) -> HeadMask:
        """Keep the `count` best heads of the whole model.

        scores: (layers, heads), comparable across layers.
        """
        order = np.argsort(-scores, axis=None, kind="stable")
        kept = np.zeros(scores.size, dtype=bool)
        kept[order[:count]] = True
        return cls(tuple(tuple(row) for row in kept.reshape(scores.shape).tolist()))

    @property
    def layers(self) -> int:
        return len(self.kept)

    @property
    def heads(self) -> int:
        """Heads of one layer, kept or not."""
        return len(self.kept[0])

    @property
    def counts(self) -> tuple[int, ...]:
        """Kept heads of each layer."""
        return tuple(sum(row) for row in self.kept)

    @property
    def total(self) -> int:
        """Kept heads of the whole model."""
        return sum(self.counts)

    def indices(self, layer: int) -> tuple[int, ...]:
        """The kept heads of one layer, ascending."""
        return tuple(head for head, keep in enumerate(self.kept[layer]) if keep)
