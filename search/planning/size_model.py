"""Size of candidates in one runtime, in parameters or megabytes: a sum over what they keep.

It is refitted as candidates are measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.arrays import Floats

RIDGE = 1e-3
"""How strongly the shares are held at equal ones, against one measurement: sizes have no noise, so
hardly at all."""


@dataclass(frozen=True)
class SizeModel:
    """Size = whole · Σ share · kept: of embeddings and head, which stay, of attention by heads, of
    feed-forward blocks by neurons, and of what else is in a layer.

    whole: the size of the uncompressed model. shares: (4,).
    """

    whole: float
    shares: Floats

    @classmethod
    def fitted(cls, whole: float, measured: Sequence[tuple[Candidate, float]]) -> SizeModel:
        """By ridge regression on proportions.

        measured: candidates in the same runtime, with their sizes.
        """
        rows = np.stack([np.ones(4), *(kept(candidate) for candidate, _ in measured)])
        wanted = np.array([1.0, *(size / whole for _, size in measured)])
        left = rows.T @ rows + RIDGE * np.eye(4)
        right = rows.T @ wanted + RIDGE * np.full(4, 0.25)
        return cls(whole, np.linalg.solve(left, right))

    def predict(self, candidate: Candidate) -> float:
        return self.whole * max(0.0, float(self.shares @ kept(candidate)))


def kept(candidate: Candidate) -> Floats:
    """(4,) the shares that a candidate keeps: of everything, of heads, neurons and layers."""
    stays = np.asarray(candidate.layers)
    heads = np.asarray(candidate.heads.counts) / candidate.heads.heads
    neurons = np.array([candidate.feed_forward.share(layer) for layer in range(len(stays))])
    return np.array([1.0, (heads * stays).mean(), (neurons * stays).mean(), stays.mean()])
