"""The knapsack problem: the least predicted damage within every budget of time.

Predictions are sums over layers, so dynamic programming finds the exact optimum for all budgets at
once.

Source: SPDY (Frantar & Alistarh 2022, arXiv:2201.13096). Differs in: a layer has several blocks,
and may be removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from paretoformer.spaces.axes.block_options import BlockKind, Costs, Damage
from paretoformer.spaces.axes.evidence import Shape
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.arrays import Floats

BUCKETS = 10_000
"""Steps into which the time of all layers is divided."""
LEVELS = (0.005, 1.0)
"""Range of predicted nats from dense in which candidates are of interest."""


@dataclass(frozen=True)
class BlockOptions:
    """One block of every layer. damage: (layers, options) nats. costs: (options,) milliseconds."""

    block: BlockKind
    damage: Damage
    costs: Costs


@dataclass(frozen=True)
class Solution:
    """A candidate with its predictions.

    damage: (layers, blocks + 1) nats per block and, last, of the layer's removal; without the
    problem's coefficients.
    """

    candidate: Candidate
    nats: float
    milliseconds: float
    damage: Floats


@dataclass(frozen=True)
class KnapsackProblem:
    """The options of every layer.

    layer: milliseconds of a layer without its blocks.
    removed: (layers,) nats of the model without that layer; inf: must stay.
    coefficients: (layers, blocks + 1) factors of the nats; None: ones.
    rest: milliseconds of the model without layers; None: unknown (runs of older versions).
    last: share of the last layer's time that remains if it computes some tokens only.
    """

    dense: Candidate
    blocks: tuple[BlockOptions, ...]
    layer: float
    removed: Floats
    coefficients: Floats | None = None
    rest: float | None = None
    last: float = 1.0

    @property
    def layers(self) -> int:
        return len(self.removed)

    @property
    def weights(self) -> Floats:
        shape = (self.layers, len(self.blocks) + 1)
        return np.ones(shape) if self.coefficients is None else self.coefficients

    @property
    def whole(self) -> float:
        """Milliseconds of all layers of the dense model."""
        full = sum(entry.costs[entry.block.uncut] for entry in self.blocks)
        return float(self.layers * (full + self.layer))

    def steps(self, milliseconds: float) -> int:
        return round(BUCKETS * milliseconds / self.whole)

    def parts(self, candidate: Candidate) -> Floats | None:
        """(blocks + 1,): milliseconds per block over all layers and, last, outside the blocks.

        None if the candidate has an option that the problem does not know.
        """
        rows = []
        weights = np.asarray(candidate.stays, dtype=np.float64)
        if candidate.reads_first:
            weights[np.flatnonzero(weights)[-1]] = self.last
        for entry in self.blocks:
            options = entry.block.options(candidate.values)
            if options is None:
                return None
            rows.append(float(entry.costs[np.asarray(options)] @ weights))
        return np.array([*rows, self.layer * weights.sum()])

    def damage(self, candidate: Candidate) -> Floats | None:
        """(layers, blocks + 1): nats per block and, last, of the layer's removal.

        None if the candidate has an option that the problem does not know.
        """
        stays = np.asarray(candidate.stays)
        found = np.zeros((self.layers, len(self.blocks) + 1))
        found[~stays, -1] = self.removed[~stays]
        for index, entry in enumerate(self.blocks):
            options = entry.block.options(candidate.values)
            if options is None:
                return None
            of_layers = entry.damage[np.arange(self.layers), np.asarray(options)]
            found[stays, index] = of_layers[stays]
        return found if np.isfinite(found).all() else None

    def shares(self, candidate: Candidate) -> Floats | None:
        """`damage` times the coefficients: the predicted nats."""
        damage = self.damage(candidate)
        return None if damage is None else self.weights * damage

    def nats(self, candidate: Candidate) -> float:
        """The predicted nats; NaN if the candidate has an option that the problem does not know."""
        shares = self.shares(candidate)
        return float("nan") if shares is None else float(shares.sum())

    def scaled(self, factors: Floats) -> KnapsackProblem:
        """The problem with other costs. factors: (blocks + 1,), for the entries of `parts`."""
        blocks = (
            replace(entry, costs=entry.costs * factor)
            for entry, factor in zip(self.blocks, factors[:-1], strict=True)
        )
        return replace(self, blocks=tuple(blocks), layer=float(self.layer * factors[-1]))

    def candidate(self, stays: Sequence[bool], options: Sequence[Sequence[int]]) -> Candidate:
        """options: per layer, one option per block."""
        values: dict[str, object] = {}
        for index, entry in enumerate(self.blocks):
            values |= entry.block.values([row[index] for row in options])
        return self.dense.replaced(**values).without_layers(stays)

    def solve(self) -> Solutions:
        """Dynamic programming over layers: the least nats within every budget, and the choices."""
        weights, best, chosen = self.weights, np.zeros(BUCKETS + 1), []
        for layer in range(self.layers):
            without = best + weights[layer, -1] * self.removed[layer]
            best, picks = _later(best, self.steps(self.layer)), []
            for index, entry in enumerate(self.blocks):
                damage = weights[layer, index] * entry.damage[layer]
                rows = np.full((len(damage), BUCKETS + 1), np.inf)
                for option in np.flatnonzero(np.isfinite(damage)):
                    rows[option] = _later(best, self.steps(entry.costs[option])) + damage[option]
                picks.append(rows.argmin(axis=0))
                best = rows.min(axis=0)
            stays = best <= without
            best = np.where(stays, best, without)
            chosen.append(LayerChoice(stays, picks))
        return Solutions(self, best, chosen)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; infinite numbers become null."""
        return {
            "kinds": [
                {"damage": _finite(entry.damage), "costs": entry.costs.tolist()}
                for entry in self.blocks
            ],
            "layer": self.layer,
            "removed": _finite(self.removed),
            "coefficients": self.weights.tolist(),
            "rest": self.rest,
            "last": self.last,
        }

    @classmethod
    def from_dict(cls, data: Any, shape: Shape, blocks: Mapping[str, BlockKind]) -> KnapsackProblem:
        """Raises KeyError, TypeError or ValueError if `data` is not from `to_dict`."""
        options = (
            BlockOptions(block, _floats(entry["damage"]), _floats(entry["costs"]))
            for block, entry in zip(blocks.values(), data["kinds"], strict=True)
        )
        rest = data.get("rest")
        found = cls(
            Candidate.dense(shape.layers, shape.heads),
            tuple(options),
            float(data["layer"]),
            _floats(data["removed"]),
            _floats(data["coefficients"]),
            None if rest is None else float(rest),
            float(data.get("last", 1.0)),
        )
        for entry in found.blocks:
            if entry.damage.shape != (shape.layers, entry.block.size):
                raise ValueError(
                    f"its blocks have {entry.damage.shape[1]} options, and those of this version "
                    f"{entry.block.size}"
                )
        return found


def _finite(numbers: Floats) -> Any:
    """Nested lists, with None for infinite numbers."""
    found = numbers.astype(object)
    found[~np.isfinite(numbers)] = None
    return found.tolist()


def _floats(numbers: Any) -> Floats:
    found = np.asarray(numbers, dtype=np.float64)
    return np.where(np.isnan(found), np.inf, found)  # null became NaN


def _later(best: Floats, steps: int) -> Floats:
    """The least nats within every budget after these steps are spent."""
    if not steps:
        return best
    found = np.full_like(best, np.inf)
    found[steps:] = best[:-steps]
    return found


@dataclass(frozen=True)
class LayerChoice:
    """The best choice in one layer, for every budget of this and the earlier layers.

    stays: (BUCKETS + 1,) whether the layer stays. options: per block, (BUCKETS + 1,).
    """

    stays: npt.NDArray[np.bool_]
    options: list[npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Solutions:
    """The solutions for every budget. best: (BUCKETS + 1,) the least nats."""

    problem: KnapsackProblem
    best: Floats
    chosen: list[LayerChoice]

    def at(self, bucket: int) -> Solution | None:
        """The best candidate within a feasible budget; None if no layer would stay."""
        problem, left = self.problem, bucket
        stays, options = [True] * problem.layers, []
        for layer in reversed(range(problem.layers)):
            choice = self.chosen[layer]
            row = [entry.block.uncut for entry in problem.blocks]
            stays[layer] = bool(choice.stays[left])
            if stays[layer]:
                for index, entry in reversed(list(enumerate(problem.blocks))):
                    row[index] = int(choice.options[index][left])
                    left -= problem.steps(entry.costs[row[index]])
                left -= problem.steps(problem.layer)
            options.append(row)
        return self._solution(stays, options[::-1]) if any(stays) else None

    def _solution(self, stays: list[bool], options: list[list[int]]) -> Solution:
        problem = self.problem
        candidate = problem.candidate(stays, options)
        damage, parts = problem.damage(candidate), problem.parts(candidate)
        assert damage is not None
        assert parts is not None
        nats = float((problem.weights * damage).sum())
        return Solution(candidate, nats, float(parts.sum()), damage)

    def along(self, count: int) -> Iterator[Solution]:
        """At most `count` different solutions, at even steps of log predicted nats."""
        fit = np.flatnonzero(np.isfinite(self.best))
        low, high = (float(np.clip(level, *_ends(self.best[fit]))) for level in LEVELS)
        seen = set()
        for level in np.geomspace(low, high, count) if high > 0 else ():
            within = fit[self.best[fit] <= level]
            solution = self.at(int(within[0])) if len(within) else None
            if solution is None or solution.candidate.is_dense:
                continue
            if solution.candidate.mixes_tokens and solution.candidate not in seen:
                seen.add(solution.candidate)
                yield solution


def _ends(nats: Floats) -> tuple[float, float]:
    above = nats[nats > 0]
    return (float(above.min()), float(above.max())) if len(above) else (0.0, 0.0)
