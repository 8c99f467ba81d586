"""A Gaussian process over few points: what a mean leaves unexplained, with how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from paretoformer.spaces.common.arrays import Floats

LENGTHS = (0.5, 1.0, 2.0, 4.0)
"""Length scales that are tried, in standard deviations of the features."""
SHARES = (0.05, 0.2, 0.5, 0.9)
"""Shares of the residuals' variance that are tried as noise."""


@dataclass(frozen=True)
class GaussianProcess:
    """Zero mean, squared-exponential kernel; length and noise of the largest likelihood.

    features: (points, features). residuals: (points,).
    """

    features: Floats
    scales: Floats
    length: float
    variance: float
    noise: float
    factor: tuple[Floats, bool]
    weights: Floats

    @classmethod
    def fitted(cls, features: Floats, residuals: Floats) -> GaussianProcess:
        scales = features.std(axis=0)
        scales[scales == 0] = 1.0
        total = max(float(residuals.var()), 1e-12)
        best: tuple[float, GaussianProcess] | None = None
        for length in LENGTHS:
            shape = np.exp(-0.5 * _distances(features, features, scales) / length**2)
            for share in SHARES:
                variance, noise = total * (1 - share), total * share
                matrix = variance * shape + noise * np.eye(len(residuals))
                factor = cho_factor(matrix, lower=True)
                weights = cho_solve(factor, residuals)
                likelihood = -0.5 * float(residuals @ weights)
                likelihood -= float(np.log(np.diagonal(factor[0])).sum())
                if best is None or likelihood > best[0]:
                    best = (
                        likelihood,
                        cls(features, scales, length, variance, noise, factor, weights),
                    )
        assert best is not None
        return best[1]

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """(mean, standard deviation) of what is not noise, for (points, features)."""
        distances = _distances(features, self.features, self.scales)
        cross = self.variance * np.exp(-0.5 * distances / self.length**2)
        mean: Floats = cross @ self.weights
        explained = (cross * cho_solve(self.factor, cross.T).T).sum(axis=1)
        return mean, np.sqrt(np.maximum(self.variance - explained, 0.0))


def _distances(one: Floats, other: Floats, scales: Floats) -> Floats:
    """Squared, per feature: (points of one, points of the other)."""
    difference = one[:, None] / scales - other[None] / scales
    squares: Floats = np.square(difference).mean(axis=2)
    return squares
