"""The latency of candidates in one runtime, predicted as a sum over blocks and refitted as it is
measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paretoformer.search.planning.knapsack import KnapsackProblem
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
    """Milliseconds = constant + Σ factor · part, the parts being those of a problem in torch."""

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
        blocks = problem.parts(problem.dense)
        assert blocks is not None
        rest = problem.rest
        if rest is None:
            rest = max(torch_dense - blocks.sum(), LEAST_REST * torch_dense)
        start = np.array([rest, *np.ones(len(blocks))])
        known = problem.parts(whole[0])
        rows, wanted = [np.array([1.0, *(blocks if known is None else known)])], [whole[1]]
        for candidate, milliseconds in measured:
            parts = problem.parts(candidate)
            if parts is not None:
                rows.append(np.array([1.0, *parts]))
                wanted.append(milliseconds)
        start *= wanted[0] / (start @ rows[0])
        # In units of what each can differ by, so that the ridge holds all of them alike.
        scales = np.maximum(start, 1e-9)
        scales[0] = max(scales[0], OVERHEAD * wanted[0])
        scales[-1] = max(scales[-1], OVERHEAD * wanted[0] / max(blocks[-1], 1e-9))
        design = np.stack(rows) / np.array(wanted)[:, None]
        missing, design = 1.0 - design @ start, design * scales
        left = design.T @ design + RIDGE * np.eye(len(scales))
        solved = start + scales * np.linalg.solve(left, design.T @ missing)
        solved = np.maximum(solved, 0.05 * start)
        return cls(problem, float(solved[0]), solved[1:])

    def predict(self, candidate: Candidate) -> float:
        """NaN where the problem does not know what the candidate has."""
        parts = self.problem.parts(candidate)
        return float("nan") if parts is None else self.constant + float(self.factors @ parts)

    def solver(self) -> KnapsackProblem:
        """The problem in this runtime's milliseconds."""
        return self.problem.scaled(self.factors)
