"""Latency of candidates in one runtime: a sum over blocks, refitted with every measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paretoformer.search.planning.knapsack import KnapsackProblem, Solutions
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.arrays import Floats

RIDGE = 0.001
"""Weight of the prior (all parts are as much faster as the whole) against one measurement: squared
noise (3%) over the squared range of a part's factor (100%)."""

OVERHEAD = 0.1
"""How far the constant and the layers' time outside their blocks can be from the timed values, as a
share of the whole model's time: a runtime has calls of its own, and a layer that is timed alone
keeps its weights in the cache."""

LEAST_REST = 0.03
"""Minimum share of the dense model's time outside its layers, if that was not timed."""


@dataclass(frozen=True)
class LatencyModel:
    """Milliseconds = constant + Σ factor · part; the parts were timed in torch."""

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
        """Ridge regression on proportions, starting from the whole model's time in the runtime.

        Without other measurements, every part is faster by the same factor as the whole. Only
        proportions of the timed parts count: a layer that is timed alone keeps its weights in the
        cache, and so takes less time than inside the model.

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
        # How far the factors can be from the start.
        scales = np.maximum(start, 1e-9)
        scales[0] = max(scales[0], OVERHEAD * times[0])
        scales[-1] = max(scales[-1], OVERHEAD * times[0] / max(dense[-1], 1e-9))
        solved = _ridge(design / np.array(times)[:, None], start, scales)
        solved = np.maximum(solved, 0.05 * start)
        return cls(problem, float(solved[0]), solved[1:])

    def predict(self, candidate: Candidate) -> float:
        """NaN if the candidate has an option that the problem does not know."""
        parts = self.problem.parts(candidate)
        return float("nan") if parts is None else self.constant + float(self.factors @ parts)

    def solutions(self) -> Solutions:
        """The best candidates within every budget of milliseconds in this runtime."""
        return self.problem.scaled(self.factors).solve()


def _rest(problem: KnapsackProblem, torch_dense: float, parts: Floats) -> float:
    """Milliseconds of the dense model in torch without its layers."""
    if problem.rest is not None:
        return problem.rest
    return max(torch_dense - float(parts.sum()), LEAST_REST * torch_dense)


def _ridge(design: Floats, start: Floats, scales: Floats) -> Floats:
    """Factors that bring every row to 1, regularised towards `start` in units of `scales`."""
    missing, scaled = 1.0 - design @ start, design * scales
    left = scaled.T @ scaled + RIDGE * np.eye(len(scales))
    solved: Floats = start + scales * np.linalg.solve(left, scaled.T @ missing)
    return solved
