"""Latency of candidates in one runtime: a sum over blocks, refitted as candidates are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paretoformer.search.planning.knapsack import KnapsackProblem, Solutions
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.arrays import Floats

RIDGE = 0.001
"""How strongly parts are held at the runtime's speed-up of the whole, against one measurement: the
square of the noise (3%) against the square of what a part can differ by (all of itself)."""

OVERHEAD = 0.1
"""Share of the whole model's time by which the constant, and what all layers have outside their
blocks, can differ from what was timed: a runtime has calls of its own, and a layer that is timed
alone keeps its weights in the cache."""

LEAST_REST = 0.03
"""Share of the dense model's time that is outside its layers, at least, where it was not timed."""


@dataclass(frozen=True)
class LatencyModel:
    """Milliseconds = constant + Σ factor · part, of the parts that were timed in torch."""

    problem: KnapsackProblem
    constant: float
    factors: Floats

    @classmethod
    def fitted(
        cls,
        problem: KnapsackProblem,
        torch_dense: float,
        whole: tuple[Candidate, float],
        measured: Sequence[tuple[Candidate, float]],
    ) -> LatencyModel:
        """By ridge regression on proportions, from what the runtime makes of the whole model.

        Without any other measurement, every part is faster by the same factor as the whole. Only
        proportions of the timed parts are used: a layer that is timed alone keeps its weights in
        the cache, and so takes less time than inside the model.

        torch_dense: milliseconds of the dense model in torch. whole: the uncompressed model in this
        runtime, with milliseconds. measured: candidates in it, with milliseconds.
        """
        dense = problem.parts(problem.dense)
        assert dense is not None
        known = problem.parts(whole[0])
        rows, times = [dense if known is None else known], [whole[1]]
        for candidate, milliseconds in measured:
            parts = problem.parts(candidate)
            if parts is not None:
                rows.append(parts)
                times.append(milliseconds)
        design = np.insert(np.stack(rows), 0, 1.0, axis=1)
        start = np.array([_rest(problem, torch_dense, dense), *np.ones(len(dense))])
        start *= times[0] / (start @ design[0])
        # By how much each can differ.
        scales = np.maximum(start, 1e-9)
        scales[0] = max(scales[0], OVERHEAD * times[0])
        scales[-1] = max(scales[-1], OVERHEAD * times[0] / max(dense[-1], 1e-9))
        solved = _ridge(design / np.array(times)[:, None], start, scales)
        solved = np.maximum(solved, 0.05 * start)
        return cls(problem, float(solved[0]), solved[1:])

    def predict(self, candidate: Candidate) -> float:
        """NaN where the problem does not know what the candidate has."""
        parts = self.problem.parts(candidate)
        return float("nan") if parts is None else self.constant + float(self.factors @ parts)

    def solutions(self) -> Solutions:
        """The best candidates within every budget of this runtime's milliseconds."""
        return self.problem.scaled(self.factors).solve()


def _rest(problem: KnapsackProblem, torch_dense: float, parts: Floats) -> float:
    """Milliseconds of the dense model in torch without its layers."""
    if problem.rest is not None:
        return problem.rest
    return max(torch_dense - float(parts.sum()), LEAST_REST * torch_dense)


def _ridge(design: Floats, start: Floats, scales: Floats) -> Floats:
    """Factors that bring every row of the design to 1, held at `start` in units of `scales`."""
    missing, scaled = 1.0 - design @ start, design * scales
    left = scaled.T @ scaled + RIDGE * np.eye(len(scales))
    solved: Floats = start + scales * np.linalg.solve(left, scaled.T @ missing)
    return solved
