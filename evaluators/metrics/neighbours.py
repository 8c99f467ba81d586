"""Nearest neighbours: the share that the dense model's vectors have too, without labels."""

from __future__ import annotations

import numpy as np

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.common.statistics import bootstrap_interval
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.metric import Quality
from paretoformer.evaluators.metrics.predictions import compared
from paretoformer.evaluators.metrics.registry import register

NEAREST = 10


class Neighbours(Quality):
    """Share of a text's 10 nearest other texts, by cosine or the model's dot product, that are the
    dense model's: the mean over texts, with a percentile bootstrap interval over them.

    A mean cosine says little of a ranking: where all vectors turn alike it is low and no
    neighbour changes, and at 0.95 a quarter of the neighbours may be others.

    The share depends on how many texts there are to choose from, so a confirmation takes as many as
    the search. It is lower in a large corpus. Ten texts or fewer have none.
    """

    name = "neighbours"
    unit = "fraction"
    requirement = "neighbours>=dense-0.1"
    of_vectors = True

    def measure(self, bench: Bench) -> Measurement | None:
        found = compared(bench).vectors
        assert found is not None  # of a task that embeds
        count = min(len(bench.workload.steering), found.shape[1])
        if count <= NEAREST:  # all others are near
            return None
        own, dense = (_nearest(each[:count]) for each in found)
        shares = (own[:, :, None] == dense[:, None, :]).any(axis=-1).mean(axis=-1)
        low, high = bootstrap_interval(lambda rows: float(shares[rows].mean()), len(shares))
        samples = tuple(shares.tolist())
        return Measurement(float(shares.mean()), low, high, self.unit, samples=samples)


def _nearest(vectors: np.ndarray) -> np.ndarray:
    """(texts, `NEAREST`) indices of other texts."""
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -np.inf)
    return np.argsort(-likeness, axis=-1, kind="stable")[:, :NEAREST]


register(Neighbours())
