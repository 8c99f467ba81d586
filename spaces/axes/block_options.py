"""Blocks: what the options of one part of a layer damage and cost.

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
    """One kind of block: attention, or feed-forward. An option may be taken in any layer."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many options there are."""

    @property
    @abstractmethod
    def meaning(self) -> str:
        """What each option stands for: equal texts, equal options."""

    @property
    @abstractmethod
    def uncut(self) -> int:
        """The option of the uncompressed model."""

    @abstractmethod
    def timed(self) -> Mapping[int, Values]:
        """Option -> the values of a candidate that has it in every layer; those to be timed."""

    @abstractmethod
    def costs(self, milliseconds: Mapping[int, float]) -> Costs:
        """(options,) milliseconds of every option, from those of one layer with the timed ones."""

    @abstractmethod
    def options(self, values: Mapping[str, Any]) -> Sequence[int] | None:
        """The options of a candidate with these values, or the nearest; None where it has others.

        The inverse of `values`.
        """

    @abstractmethod
    def measured(self, costs: Costs) -> Sequence[int]:
        """The options whose damage is measured in each layer, the others being between them, or
        not worth it at these costs."""

    def slower(self, costs: Costs) -> Sequence[str]:
        """Names of what is not measured because it takes longer than what it replaces."""
        return ()

    def mechanisms(self, costs: Costs) -> Sequence[Any]:
        """The attention mechanisms among the measured options."""
        return ()

    @abstractmethod
    def filled(self, nats: Mapping[int, Damage]) -> Damage:
        """(layers, options) nats of every option, from (layers,) nats of the measured ones; inf of
        those that may not be chosen."""

    @abstractmethod
    def values(self, chosen: Sequence[int]) -> Values:
        """The values of the axes that this block decides, for one option a layer."""


WRECK = 1e3
"""Nats of a cut after which a model has no answer."""


def between(sizes: Sequence[int], nats: Sequence[Damage], wanted: Sequence[int]) -> Damage:
    """(layers, wanted): the damage of cuts to these sizes, from those of a few.

    A larger block damages at most as much as a smaller one: noise that says otherwise is removed.
    Between the sizes the curve is a monotone cubic (Fritsch & Carlson 1980). What could not be
    measured counts as `WRECK`.

    sizes: increasing, the uncut one last. nats: of each, (layers,).
    """
    from scipy.interpolate import PchipInterpolator

    known = np.nan_to_num(np.stack(nats), nan=WRECK, posinf=WRECK)
    curve = np.maximum.accumulate(known[::-1].clip(min=0), axis=0)[::-1]
    points = np.asarray(wanted)
    found: Damage = PchipInterpolator(sizes, curve, axis=0)(points).T.clip(min=0)
    found[:, points == sizes[-1]] = curve[-1][:, None]  # without rounding
    return found


def rising(costs: Sequence[float]) -> Costs:
    """Costs of increasing sizes, without the noise that makes a larger one cheaper (isotonic)."""
    from scipy.optimize import isotonic_regression

    found: Costs = isotonic_regression(np.maximum(costs, 0.0)).x
    return found


def normalised(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scores divided by their layer's l2 norm, so that layers compare: (layers, anything).

    Source: Michel, Levy, Neubig 2019 (arXiv:1905.10650), section 4.1, after Molchanov et al. 2017.
    """
    norms = np.linalg.norm(scores, axis=1, keepdims=True)
    normed: npt.NDArray[np.float64] = np.divide(
        scores, norms, out=np.zeros_like(scores), where=norms > 0
    )
    return normed
