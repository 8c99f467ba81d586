"""Blocks: what the options of one part of a layer damage and cost.

The damage and the time of a candidate are predicted as sums over its blocks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Values = Mapping[str, object]
"""Axis name -> its value."""
Costs = npt.NDArray[np.float64]


class Block(ABC):
    """One kind of block: attention, or feed-forward. An option may be taken in any layer.

    damage: (layers, options), predicted to first order, in a unit of this block's own; the
    uncompressed option has none.
    """

    damage: npt.NDArray[np.float64]

    @abstractmethod
    def timed(self) -> Mapping[int, Values]:
        """Option -> the values of a candidate that has it in every layer; those to be timed."""

    @abstractmethod
    def costs(self, milliseconds: Mapping[int, float]) -> Costs:
        """(options,) milliseconds of every option, from those of one layer with the timed ones."""

    @abstractmethod
    def halved(self) -> Sequence[int]:
        """An option for each layer, with which about half of the block is cut."""

    def kinds(self, costs: Costs) -> Sequence[Values]:
        """Options of another kind in every layer, such as a mechanism, that cost less here."""
        return ()

    @abstractmethod
    def values(self, chosen: Sequence[int]) -> Values:
        """The values of the axes that this block decides, for one option a layer."""


def normalised(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scores divided by their layer's l2 norm, so that layers compare: (layers, anything).

    Source: Michel, Levy, Neubig 2019 (arXiv:1905.10650), section 4.1, after Molchanov et al. 2017.
    """
    norms = np.linalg.norm(scores, axis=1, keepdims=True)
    normed: npt.NDArray[np.float64] = np.divide(
        scores, norms, out=np.zeros_like(scores), where=norms > 0
    )
    return normed
