"""Block options: the damage and the cost of each option for one part of a layer.

The damage and the time of a candidate are predicted as sums over its blocks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Values = Mapping[str, object]
"""Axis name -> its value."""
Costs = npt.NDArray[np.float64]
Damage = npt.NDArray[np.float64]


class BlockKind(ABC):
    """The options of one kind of block, attention or feed-forward; the same in every layer."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of options."""

    @property
    @abstractmethod
    def meaning(self) -> str:
        """A description of all options: equal texts, equal options."""

    @property
    @abstractmethod
    def uncut(self) -> int:
        """The option of the uncompressed model."""

    @abstractmethod
    def timed(self) -> Mapping[int, Values]:
        """Timed option -> the values of a candidate that has it in every layer."""

    @abstractmethod
    def costs(self, milliseconds: Mapping[int, float]) -> Costs:
        """(options,) milliseconds of every option in one layer, from those of the timed ones."""

    @abstractmethod
    def options(self, values: Mapping[str, Any]) -> Sequence[int] | None:
        """A candidate's options, or the nearest; None if none fits. Inverts `values`."""

    @abstractmethod
    def measured(self, costs: Costs) -> Sequence[int]:
        """The options whose damage is measured in each layer, the most informative first; others
        are interpolated, or too slow at these costs. If time is over, the last ones are left out.
        """

    def slower(self, costs: Costs) -> Sequence[str]:
        """Names of options that are not measured because they are slower than what they replace."""
        return ()

    def mechanisms(self, costs: Costs) -> Sequence[Any]:
        """The attention mechanisms among the measured options."""
        return ()

    @abstractmethod
    def filled(self, nats: Mapping[int, Damage]) -> Damage:
        """(layers, options) nats of every option, from (layers,) nats of the measured ones, at
        least the first; inf for options that may not be chosen."""

    @abstractmethod
    def values(self, chosen: Sequence[int]) -> Values:
        """The values of the axes that this block decides, for one option per layer."""


WRECK = 1e3
"""Nats of a cut whose model has no finite output."""


def between(sizes: Sequence[int], nats: Sequence[Damage], wanted: Sequence[int]) -> Damage:
    """(layers, wanted): the damage of cuts to the wanted sizes, interpolated.

    Damage is made non-increasing in size, which removes noise; between the sizes it is a monotone
    cubic (Fritsch & Carlson 1980). A failed measurement counts as `WRECK`.

    sizes: increasing, the uncut one last. nats: (layers,) for each size.
    """
    from scipy.interpolate import PchipInterpolator

    known = np.nan_to_num(np.stack(nats), nan=WRECK, posinf=WRECK)
    curve = np.maximum.accumulate(known[::-1].clip(min=0), axis=0)[::-1]
    points = np.asarray(wanted)
    found: Damage = PchipInterpolator(sizes, curve, axis=0)(points).T.clip(min=0)
    found[:, points == sizes[-1]] = curve[-1][:, None]  # no rounding error
    return found


def rising(costs: Sequence[float]) -> Costs:
    """Costs of increasing sizes, made non-decreasing by isotonic regression to remove noise."""
    from scipy.optimize import isotonic_regression

    found: Costs = isotonic_regression(np.maximum(costs, 0.0)).x
    return found


def normalised(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scores divided by their layer's l2 norm, so that layers are comparable: (layers, anything).

    Source: Michel, Levy, Neubig 2019 (arXiv:1905.10650), section 4.1, after Molchanov et al. 2017.
    """
    norms = np.linalg.norm(scores, axis=1, keepdims=True)
    normed: npt.NDArray[np.float64] = np.divide(
        scores, norms, out=np.zeros_like(scores), where=norms > 0
    )
    return normed
