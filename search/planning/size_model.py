"""Size of candidates in one runtime, in parameters or megabytes: a sum over the shares they keep.

It is refitted with every measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.arrays import Floats

RIDGE = 1e-3
"""Weight of the prior (equal shares) against one measurement: small, since sizes have no noise."""


@dataclass(frozen=True)
class SizeModel:
    """Size = whole · Σ share · kept, over the embeddings and head, which stay, the parts of a layer
    that an axis cuts, and the rest of a layer.

    whole: the size of the uncompressed model. shares: (parts,).
    """

    whole: float
    shares: Floats

    @classmethod
    def fitted(cls, whole: float, measured: Sequence[tuple[Candidate, float]]) -> SizeModel:
        """Ridge regression on proportions.

        measured: candidates in the same runtime, with their sizes.
        """
        dense = kept(Candidate.dense(layers=1, heads=1))
        rows = np.stack([dense, *(kept(candidate) for candidate, _ in measured)])
        wanted = np.array([1.0, *(size / whole for _, size in measured)])
        left = rows.T @ rows + RIDGE * np.eye(len(dense))
        right = rows.T @ wanted + RIDGE * dense / len(dense)
        return cls(whole, np.linalg.solve(left, right))

    def predict(self, candidate: Candidate) -> float:
        return self.whole * max(0.0, float(self.shares @ kept(candidate)))


def kept(candidate: Candidate) -> Floats:
    """(parts,): the shares that a candidate keeps; ones for the uncompressed model."""
    return np.array([1.0, *candidate.kept_shares])
