"""Prediction: which candidates should trade well, by sums over their blocks.

A prediction decides what is measured first, and is never reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from paretoformer.spaces.axes.block_options import Block, Costs
from paretoformer.spaces.candidate import Candidate

PRICES = np.logspace(-5, 5, 401)
"""What a millisecond may cost in damage, relative to the loss of everything for all of the time."""


@dataclass(frozen=True)
class Priced:
    """A block with its costs, and the factor that turns its damage into that of all blocks."""

    block: Block
    costs: Costs
    scale: float = 1.0

    @property
    def everything(self) -> float:
        """Milliseconds of the most expensive option in every layer, over the cheapest."""
        return len(self.block.damage) * float(np.ptp(self.costs))

    @property
    def worst(self) -> float:
        worst = np.where(np.isfinite(self.block.damage), self.block.damage, 0.0)
        return self.scale * float(worst.max(axis=1).sum())

    def solve(self, price: float) -> tuple[npt.NDArray[np.int64], float, float]:
        """The best option of each layer at a price, with its predicted damage and cost."""
        chosen = (self.scale * self.block.damage + price * self.costs).argmin(axis=1)
        damage = self.scale * float(self.block.damage[np.arange(len(chosen)), chosen].sum())
        return chosen, damage, float(self.costs[chosen].sum())


@dataclass(frozen=True)
class Forecast:
    """A candidate with what the sums predict of it."""

    candidate: Candidate
    damage: float
    milliseconds: float
    chosen: tuple[tuple[int, ...], ...] = field(default=(), repr=False)


def forecasts(dense: Candidate, blocks: Sequence[Priced]) -> list[Forecast]:
    """The predicted front's convex hull, the slowest first; neither dense nor what has no heads.

    At any price of a millisecond each layer has a best option of each block by itself; the prices
    between which the options change give the hull. The same idea, with exact budgets, is in SPDY
    (Frantar & Alistarh 2022, arXiv:2201.13096).
    """
    time = sum(block.everything for block in blocks)
    scale = sum(block.worst for block in blocks) / time if time else 1.0
    found: dict[Candidate, Forecast] = {}
    for price in PRICES * scale:
        solved = [block.solve(price) for block in blocks]
        values: dict[str, object] = {}
        for block, (chosen, _, _) in zip(blocks, solved, strict=True):
            values |= block.block.values(chosen.tolist())
        candidate = dense.replaced(**values)
        damage, cost = (float(sum(each[i] for each in solved)) for i in (1, 2))
        found.setdefault(candidate, Forecast(candidate, damage, cost))
    inner = [each for c, each in found.items() if not c.is_dense and c.heads.total]
    return sorted(inner, key=lambda each: -each.milliseconds)


def spread(found: Sequence[Forecast], count: int) -> list[Candidate]:
    """`count` of them at even steps of predicted time."""
    if len(found) <= count:
        return [each.candidate for each in found]
    times = np.array([each.milliseconds for each in found])
    wanted = np.linspace(times[0], times[-1], count)
    nearest = [int(np.abs(times - each).argmin()) for each in wanted]
    return [found[index].candidate for index in dict.fromkeys(nearest)]
