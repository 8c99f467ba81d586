"""The solver: the candidate with the least predicted damage within each budget of time.

Predictions are sums over layers, so dynamic programming finds the best of all candidates exactly,
for every budget at once.

Source: SPDY (Frantar & Alistarh 2022, arXiv:2201.13096): the programme, and coefficients of the
layers that are learned from whole candidates. Differs in: a layer has two blocks, and may go as a
whole; coefficients are fitted by least squares on what was measured, after each round, and drawn at
random only to see something new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from paretoformer.spaces.axes.axis import Shape
from paretoformer.spaces.axes.block_options import Block, Costs, Damage
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.arrays import Floats

BUCKETS = 10_000
"""Steps of time that a budget is counted in."""
LEVELS = (0.005, 1.0)
"""Between these predicted nats from dense lies what is worth a look."""
DRAWN = 0.5
"""Standard deviation of the logarithm of drawn coefficients around the fitted ones."""
CAUTION = 0.05
"""What one unit of a coefficient's logarithm away from the others weighs against the fit."""


@dataclass(frozen=True)
class Kind:
    """One kind of block. damage: (layers, options) nats. costs: (options,) milliseconds."""

    block: Block
    damage: Damage
    costs: Costs


@dataclass(frozen=True)
class Solution:
    """A candidate with what is predicted of it.

    shares: (layers, kinds + 1) nats that each block adds, and last the removal of the layer.
    """

    candidate: Candidate
    nats: float
    milliseconds: float
    shares: Floats


@dataclass(frozen=True)
class Programme:
    """What may be chosen in each layer.

    layer: milliseconds of what is left of a layer without its blocks.
    removed: (layers,) nats of the model without that layer; inf where it must stay.
    coefficients: (layers, kinds + 1), by which the nats of each are multiplied; None: by one.
    rest: milliseconds of the model without its layers; None: not known (runs of older versions).
    last: the share of its time that is left of the last layer where it computes some tokens only.
    """

    dense: Candidate
    kinds: tuple[Kind, ...]
    layer: float
    removed: Floats
    coefficients: Floats | None = None
    rest: float | None = None
    last: float = 1.0

    @property
    def layers(self) -> int:
        return len(self.removed)

    @property
    def whole(self) -> float:
        """Milliseconds of all layers of the dense model."""
        full = sum(kind.costs[kind.block.uncut] for kind in self.kinds)
        return float(self.layers * (full + self.layer))

    def to_dict(self) -> dict[str, Any]:
        """As it is written in JSON, in which what is infinite is null."""
        return {
            "kinds": [
                {"damage": _finite(kind.damage), "costs": kind.costs.tolist()}
                for kind in self.kinds
            ],
            "layer": self.layer,
            "removed": _finite(self.removed),
            "coefficients": self.weights.tolist(),
            "rest": self.rest,
            "last": self.last,
        }

    @classmethod
    def from_dict(cls, data: Any, shape: Shape, blocks: Mapping[str, Block]) -> Programme:
        """Raises KeyError, TypeError or ValueError when it is not what `to_dict` returned."""
        kinds = (
            Kind(block, _floats(each["damage"]), _floats(each["costs"]))
            for block, each in zip(blocks.values(), data["kinds"], strict=True)
        )
        removed, weights = _floats(data["removed"]), _floats(data["coefficients"])
        dense = Candidate.dense(shape.layers, shape.heads)
        rest, last = data.get("rest"), float(data.get("last", 1.0))
        rest = None if rest is None else float(rest)
        found = cls(dense, tuple(kinds), float(data["layer"]), removed, weights, rest, last)
        for kind in found.kinds:
            if kind.damage.shape[1] != kind.block.size:
                raise ValueError(
                    f"its blocks have {kind.damage.shape[1]} options, and those of this version "
                    f"{kind.block.size}"
                )
        return found

    def solve(self) -> Solutions:
        """The best candidate within every budget."""
        return Solutions(self, *self._tables())

    def parts(self, candidate: Candidate) -> Floats | None:
        """(kinds + 1,) the milliseconds of each kind in all layers, and of what is left of them.

        None where the candidate has what the programme does not know.
        """
        found = [kind.block.options(candidate.values) for kind in self.kinds]
        if any(options is None for options in found):
            return None
        weights = np.asarray(candidate.layers, dtype=np.float64)
        if candidate["readout"] != self.dense["readout"]:
            weights[np.flatnonzero(weights)[-1]] = self.last
        sums = [
            float(kind.costs[np.asarray(options)] @ weights)
            for kind, options in zip(self.kinds, found, strict=True)
        ]
        return np.array([*sums, self.layer * weights.sum()])

    def nats(self, candidate: Candidate) -> float:
        """What is predicted of any candidate; NaN where it has what the programme does not know."""
        shares = self.shares(candidate)
        return float("nan") if shares is None else float(shares.sum())

    def shares(self, candidate: Candidate) -> Floats | None:
        """(layers, kinds + 1) of the predicted nats: by each block, and by a layer's removal."""
        found = [kind.block.options(candidate.values) for kind in self.kinds]
        weights, shares = self.weights, np.zeros((self.layers, len(self.kinds) + 1))
        for layer, stays in enumerate(candidate.layers):
            if not stays:
                shares[layer, -1] = weights[layer, -1] * self.removed[layer]
                continue
            for index, (kind, options) in enumerate(zip(self.kinds, found, strict=True)):
                if options is None:
                    return None
                shares[layer, index] = weights[layer, index] * kind.damage[layer, options[layer]]
        return shares if np.isfinite(shares).all() else None

    def scaled(self, factors: Floats) -> Programme:
        """With other costs. factors: (kinds + 1,), as `parts` are."""
        kinds = (
            replace(kind, costs=kind.costs * each)
            for kind, each in zip(self.kinds, factors[:-1], strict=True)
        )
        return replace(self, kinds=tuple(kinds), layer=float(self.layer * factors[-1]))

    @property
    def weights(self) -> Floats:
        """The coefficients, or ones."""
        shape = (self.layers, len(self.kinds) + 1)
        return np.ones(shape) if self.coefficients is None else self.coefficients

    def _tables(self) -> tuple[Floats, list[list[npt.NDArray[np.int64]]]]:
        """(BUCKETS + 1,) the least damage within each budget; and what was chosen for it.

        Of each layer the chosen: an option of each kind, and last whether the layer stays.
        """
        weights = self.weights
        best = np.zeros(BUCKETS + 1)
        chosen = []
        for layer in range(self.layers):
            before, picks = best, []
            best = _later(best, self.steps(self.layer))
            for index, kind in enumerate(self.kinds):
                damage = weights[layer, index] * kind.damage[layer]
                rows = np.full((len(damage), BUCKETS + 1), np.inf)
                for option in np.flatnonzero(np.isfinite(damage)):
                    rows[option] = _later(best, self.steps(kind.costs[option])) + damage[option]
                picks.append(rows.argmin(axis=0))
                best = rows.min(axis=0)
            without = before + weights[layer, -1] * self.removed[layer]
            stays = best <= without
            best = np.where(stays, best, without)
            chosen.append([*picks, stays.astype(np.int64)])
        return best, chosen

    def steps(self, milliseconds: float) -> int:
        return round(BUCKETS * milliseconds / self.whole)


def _finite(numbers: Floats) -> Any:
    return [
        _finite(each)
        if isinstance(each, np.ndarray)
        else float(each)
        if np.isfinite(each)
        else None
        for each in numbers
    ]


def _floats(numbers: Any) -> Floats:
    found = np.asarray(numbers, dtype=np.float64)
    return np.where(np.isnan(found), np.inf, found)  # which null becomes


def _later(best: Floats, steps: int) -> Floats:
    """What is left of every budget after these steps."""
    if not steps:
        return best
    found = np.full_like(best, np.inf)
    found[steps:] = best[:-steps]
    return found


@dataclass(frozen=True)
class Solutions:
    """The solutions of a programme, for every budget."""

    programme: Programme
    best: Floats
    chosen: list[list[npt.NDArray[np.int64]]]

    def at(self, bucket: int) -> Solution | None:
        """The best candidate within a budget that has one; None where no layer would stay."""
        here = self.programme
        weights, left = here.weights, bucket
        options = np.zeros((len(here.kinds), here.layers), dtype=np.int64)
        shares = np.zeros((here.layers, len(here.kinds) + 1))
        stays, time = [True] * here.layers, 0.0
        for layer in reversed(range(here.layers)):
            *picks, kept = self.chosen[layer]
            if not kept[left]:
                stays[layer] = False
                shares[layer, -1] = here.removed[layer]
                options[:, layer] = [kind.block.uncut for kind in here.kinds]
                continue
            for index in reversed(range(len(here.kinds))):
                kind, option = here.kinds[index], int(picks[index][left])
                options[index, layer] = option
                shares[layer, index] = kind.damage[layer, option]
                time += float(kind.costs[option])
                left -= here.steps(kind.costs[option])
            left -= here.steps(here.layer)
            time += here.layer
        if not any(stays):
            return None
        values: dict[str, object] = {"layers": tuple(stays)} if not all(stays) else {}
        for kind, row in zip(here.kinds, options, strict=True):
            values |= kind.block.values(row.tolist())
        candidate = here.dense.replaced(**values)
        return Solution(candidate, float((weights * shares).sum()), time, shares)

    def along(self, count: int) -> Iterator[Solution]:
        """At most `count` different ones at even steps of the logarithm of their predicted nats."""
        fit = np.flatnonzero(np.isfinite(self.best))
        low, high = (float(np.clip(level, *_ends(self.best[fit]))) for level in LEVELS)
        seen = set()
        for level in np.geomspace(low, high, count) if high > 0 else ():
            within = fit[self.best[fit] <= level]
            if not len(within):
                continue
            solution = self.at(int(within[0]))
            if solution is None or solution.candidate.is_dense:
                continue
            if _has_heads(solution.candidate) and solution.candidate not in seen:
                seen.add(solution.candidate)
                yield solution


def _has_heads(candidate: Candidate) -> bool:
    counts = zip(candidate.heads.counts, candidate.layers, strict=True)
    return any(count for count, stays in counts if stays)


def _ends(nats: Floats) -> tuple[float, float]:
    above = nats[nats > 0]
    return (float(above.min()), float(above.max())) if len(above) else (0.0, 0.0)


@dataclass(frozen=True)
class Screened:
    """A solution whose nats were measured."""

    solution: Solution
    nats: float


def learn(
    programme: Programme,
    screens: Callable[[Sequence[Candidate]], Iterable[tuple[Candidate, float]]],
    rounds: int,
    count: int,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
    is_late: Callable[[], bool] = lambda: False,
) -> tuple[Programme, list[Screened]]:
    """Solve, measure, fit the coefficients to what was measured, and again.

    screens: candidates -> each with its nats, in any order; not the sum over its blocks. count:
    budgets of a round. is_late: whether there is no time for a further round.

    Returns the programme with the coefficients of the last round, and all that was screened.
    """
    rng = np.random.default_rng(seed)
    found: dict[Candidate, Screened] = {}
    for turn in range(rounds):
        if found and is_late():
            break
        fitted = programme.weights
        drawn = rng.normal(scale=DRAWN * (turn % 2), size=fitted.shape)
        looked = _with(programme, fitted * np.exp(drawn))
        solutions = {each.candidate: each for each in looked.solve().along(count)}
        new = [candidate for candidate in solutions if candidate not in found]
        nats = {}
        for candidate, value in screens(new):
            nats[candidate] = value
            progress(turn * count + len(nats), rounds * count)
        found |= {each: Screened(solutions[each], nats[each]) for each in new}
        if found:
            programme = _with(programme, coefficients([*found.values()], fitted.shape))
    progress(rounds * count, rounds * count)
    return programme, list(found.values())


def _with(programme: Programme, coefficients: Floats) -> Programme:
    return replace(programme, coefficients=coefficients)


def coefficients(found: Sequence[Screened], shape: tuple[int, ...]) -> Floats:
    """Those whose sums are, in proportion, nearest to what was measured.

    They are drawn to one common size, from which only measurements take them.
    """
    rows = np.stack([each.solution.shares.ravel() for each in found])
    wanted = np.array([each.nats for each in found])
    fit = (rows.sum(axis=1) > 0) & (wanted > 0) & np.isfinite(wanted)
    if not fit.any():
        return np.ones(shape)
    rows, wanted = rows[fit], wanted[fit]
    scale = float(np.exp(np.median(np.log(wanted / rows.sum(axis=1)))))

    def misses(logs: Floats) -> Floats:
        predicted = rows @ np.exp(logs)
        return np.concatenate((np.log(predicted / wanted), CAUTION**0.5 * (logs - np.log(scale))))

    start = np.full(rows.shape[1], np.log(scale))
    found_logs: Floats = least_squares(misses, start, max_nfev=50).x
    return np.exp(found_logs).reshape(shape)


def best_screened(found: Sequence[Screened], count: int) -> list[Candidate]:
    """At most `count` of what was screened: none slower and worse than another; even in log nats,
    the slowest first."""
    known = (each for each in found if np.isfinite(each.nats))
    ordered = sorted(known, key=lambda each: (each.solution.milliseconds, each.nats))
    best: list[Screened] = []
    for each in ordered:
        if not best or each.nats < best[-1].nats:
            best.append(each)
    best.reverse()  # now the slowest is the first
    if len(best) <= count:
        return [each.solution.candidate for each in best]
    logs = np.log([max(each.nats, 1e-9) for each in best])
    wanted = np.linspace(logs[0], logs[-1], count)
    nearest = dict.fromkeys(int(np.abs(logs - each).argmin()) for each in wanted)
    return [best[index].solution.candidate for index in nearest]
