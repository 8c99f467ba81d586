"""A Gaussian process over few points, for the residuals of a mean, with their uncertainty."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from paretoformer.spaces.common.arrays import Floats

LENGTHS = (0.5, 4.0)
"""Bounds of the length scale, in standard deviations of the features."""
NOISE = (0.05, 0.9)
"""Bounds of the noise, as a share of the residuals' variance."""


@dataclass(frozen=True)
class GaussianProcess:
    """scikit-learn's, on standardised features: squared-exponential kernel plus noise.

    scales: of the features. deviation: of the residuals.
    """

    scales: Floats
    deviation: float
    process: GaussianProcessRegressor

    @classmethod
    def fitted(cls, features: Floats, residuals: Floats) -> GaussianProcess:
        """features: (points, features). residuals: (points,)."""
        scales = features.std(axis=0)
        scales[scales == 0] = 1.0
        scales *= np.sqrt(features.shape[1])  # distances are means over the features
        deviation = max(float(residuals.std()), 1e-6)
        kernel = ConstantKernel(0.8, (0.1, 1.0)) * RBF(1.0, LENGTHS) + WhiteKernel(0.2, NOISE)
        process = GaussianProcessRegressor(kernel)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the optimum may be at a bound
            process.fit(features / scales, residuals / deviation)
        return cls(scales, deviation, process)

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """(mean, standard deviation) without the noise, for features (points, features)."""
        mean, error = self.process.predict(features / self.scales, return_std=True)
        noise = self.process.kernel_.k2.noise_level
        certain = np.sqrt(np.maximum(np.square(error) - noise, 0.0))
        return self.deviation * mean, self.deviation * certain
