"""Learning: correct the sums over blocks by measurements of whole candidates.

Source: SPDY (Frantar & Alistarh 2022, arXiv:2201.13096): coefficients of the layers. Differs in:
they are fitted by least squares after every round, and drawn at random only for exploration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import least_squares

from paretoformer.search.planning.knapsack import KnapsackProblem, Solution
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.arrays import Floats

DRAWN = 0.5
"""Standard deviation of log coefficients that are drawn around the fitted ones."""
ENOUGH = 4
"""Candidates of the first round that are measured even if time is over."""
STRIDE = 3
"""Candidates are measured in an order that covers all budgets early."""
CAUTION = 0.05
"""Regularisation: weight of squared deviations of log coefficients from their common value."""


@dataclass(frozen=True)
class MeasuredSolution:
    solution: Solution
    nats: float


def learn(
    problem: KnapsackProblem,
    screens: Callable[[Sequence[Candidate]], Iterable[tuple[Candidate, float]]],
    rounds: int,
    count: int,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
    is_late: Callable[[], bool] = lambda: False,
) -> tuple[KnapsackProblem, list[MeasuredSolution]]:
    """Repeat: solve, measure, fit the coefficients.

    screens: candidates -> (candidate, measured nats) in any order. count: budgets per round.
    is_late: whether time is over; `ENOUGH` are measured all the same. Ten candidates of a model of
    12 layers of width 768 took five of its 30 minutes.

    Returns the problem with the last coefficients, and all measured solutions.
    """
    rng = np.random.default_rng(seed)
    found: dict[Candidate, MeasuredSolution] = {}
    for turn in range(rounds):
        if found and is_late():
            break
        fitted = problem.weights
        drawn = rng.normal(scale=DRAWN * (turn % 2), size=fitted.shape)
        looked = _with(problem, fitted * np.exp(drawn))
        solutions = {solution.candidate: solution for solution in looked.solve().along(count)}
        new = [candidate for candidate in solutions if candidate not in found]
        nats = {}
        for candidate, value in screens([c for i in range(STRIDE) for c in new[i::STRIDE]]):
            nats[candidate] = value
            progress(turn * count + len(nats), rounds * count)
            if (turn or len(nats) >= ENOUGH) and is_late():
                break
        found |= {c: MeasuredSolution(solutions[c], value) for c, value in nats.items()}
        if found:
            problem = _with(problem, coefficients([*found.values()], fitted.shape))
    progress(rounds * count, rounds * count)
    return problem, list(found.values())


def _with(problem: KnapsackProblem, coefficients: Floats) -> KnapsackProblem:
    return replace(problem, coefficients=coefficients)


def coefficients(found: Sequence[MeasuredSolution], shape: tuple[int, ...]) -> Floats:
    """Least-squares fit of log predicted to log measured nats, regularised to a common value."""
    rows = np.stack([measured.solution.damage.ravel() for measured in found])
    wanted = np.array([measured.nats for measured in found])
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


def best_screened(found: Sequence[MeasuredSolution], count: int) -> list[Candidate]:
    """At most `count` non-dominated ones by milliseconds and nats, evenly spaced in log nats, the
    slowest first."""
    known = (measured for measured in found if np.isfinite(measured.nats))
    ordered = sorted(known, key=lambda measured: (measured.solution.milliseconds, measured.nats))
    best: list[MeasuredSolution] = []
    for measured in ordered:
        if not best or measured.nats < best[-1].nats:
            best.append(measured)
    best.reverse()  # the slowest first
    if len(best) <= count:
        return [measured.solution.candidate for measured in best]
    logs = np.log([max(measured.nats, 1e-9) for measured in best])
    wanted = np.linspace(logs[0], logs[-1], count)
    nearest = dict.fromkeys(int(np.abs(logs - level).argmin()) for level in wanted)
    return [best[index].solution.candidate for index in nearest]
