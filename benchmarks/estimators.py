"""Which estimator of a timing is the most repeatable? A dozen on the same raw block times.

Random candidates of a built-in study's model are pruned, served and timed in several fresh
processes (sessions), in rounds of blocks A B B A of the dense model A and the candidate B. In half
of the sessions the machine is quiet; in the others an intermittent neighbour process uses one core.
Each estimator gives a ratio to dense per timing. Reported per estimator: Kendall's tau between the
rankings of two sessions and the median difference of their ratios, averaged over pairs of quiet
sessions, of sessions with the neighbour, and of one with and one without.

    python benchmarks/estimators.py [--study reviews] [--candidates 16] [--sessions 4] [--seconds 3]
                                    [--runtimes torch openvino openvino:int8] [--raw blocks.json]

--raw: stores the block times; an existing file is read instead of timing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from typing import Any
from unittest import mock

import numpy as np
import torch
from scipy.stats import kendalltau, trim_mean
from timed_space import TimedSpace, build_all, in_a_fresh_process, neighbour, options

from paretoformer.evaluators.common.target import cpu_name
from paretoformer.evaluators.timing import intervals
from paretoformer.evaluators.timing.clocks import stopwatch
from paretoformer.evaluators.timing.conditions import Watch
from paretoformer.evaluators.timing.intervals import ROUNDS, Reference, Timed
from paretoformer.evaluators.timing.protocol import BLOCK_SECONDS, settle, warm_up

QUIET, LOADED = "quiet", "with a neighbour"


@dataclass(frozen=True)
class Raw:
    """Block times of one timing, in milliseconds per forward.

    dense, candidate: (rounds, 2). reference: the dense model's mean time alone.
    """

    dense: np.ndarray
    candidate: np.ndarray
    reference: float

    @property
    def ratios(self) -> np.ndarray:
        """(rounds,)"""
        return np.asarray(self.candidate.sum(axis=1) / self.dense.sum(axis=1))


def of_quantiles(share: float, raw: Raw) -> float:
    return float(np.quantile(raw.candidate, share) / np.quantile(raw.dense, share))


def of_quickest(share: float, raw: Raw) -> float:
    """Ratio of the means of this share of each model's fastest blocks."""
    first, second = (np.sort(times, axis=None) for times in (raw.candidate, raw.dense))
    count = max(1, round(share * len(first)))
    return float(first[:count].mean() / second[:count].mean())


def of_trimmed(share: float, raw: Raw) -> float:
    return float(trim_mean(raw.candidate, share, None) / trim_mean(raw.dense, share, None))


def of_undelayed(factor: float, raw: Raw) -> float:
    """Mean ratio of rounds without a block above `factor` x its usual time."""
    with mock.patch.object(intervals, "DELAYED", factor):
        return Timed.of_rounds(raw.dense, raw.candidate, Reference(1.0)).mean


ESTIMATORS: dict[str, Callable[[Raw], float]] = {
    "mean of ratios A B B A": lambda raw: float(raw.ratios.mean()),
    "median of ratios A B B A": lambda raw: float(np.median(raw.ratios)),
    **{
        f"mean of ratios, no block {factor} x"
        + (" (now)" if factor == intervals.DELAYED else ""): partial(of_undelayed, factor)
        for factor in (1.15, 1.3, 1.5, 2.0)
    },
    "ratio of minima": lambda raw: float(raw.candidate.min() / raw.dense.min()),
    **{f"ratio of {q}% quantiles": partial(of_quantiles, q / 100) for q in (10, 20, 30, 40)},
    "ratio of medians": partial(of_quantiles, 0.5),
    "ratio of means of the quickest half": partial(of_quickest, 0.5),
    "ratio of means": lambda raw: float(raw.candidate.mean() / raw.dense.mean()),
    "ratio of means, 10% trimmed": partial(of_trimmed, 0.1),
    "ratio of means, 25% trimmed": partial(of_trimmed, 0.25),
    "median alone over the reference": lambda raw: float(np.median(raw.candidate) / raw.reference),
}


def block(timed: Callable[[], float]) -> Callable[[], float]:
    """A function that returns the mean time over one block of forwards."""
    runs = max(1, round(BLOCK_SECONDS * 1e3 / max(timed(), 1e-3)))
    return lambda: sum(timed() for _ in range(runs)) / runs


def rounds(
    dense: Callable[[], float], candidate: Callable[[], float], seconds: float
) -> tuple[list[list[float]], list[list[float]]]:
    """Blocks A B B A until the time is over: the dense model's, the candidate's."""
    warm_up(dense, candidate)
    a, b = block(dense), block(candidate)
    first: list[list[float]] = []
    second: list[list[float]] = []
    start = time.perf_counter()
    settle(dense)
    while len(first) < ROUNDS or time.perf_counter() - start < seconds:
        before = a()
        settle(candidate)
        second.append([b(), b()])
        settle(dense)
        first.append([before, a()])
    return first, second


def once(arguments: argparse.Namespace) -> dict[str, Any]:
    """One session: time every candidate in this process, in random order."""
    timed = TimedSpace(arguments.study, arguments.runtimes, arguments.built)
    target = timed.subject.target
    batch, clock = timed.subject.workload.timing_batch(target), stopwatch(target.device)

    def timer(model: Any) -> Callable[[], float]:
        return lambda: clock(lambda: model(**batch))

    dense = timer(timed.subject.model)
    built = [compressed.runnable for _, compressed in timed.drawn(arguments.candidates)]
    rows: dict[int, Any] = {}
    with torch.inference_mode():
        alone = np.ravel(rounds(dense, dense, arguments.seconds))
        order = np.random.default_rng(time.time_ns()).permutation(len(built))
        for index in map(int, order):
            with Watch(target.device) as watch:
                first, second = rounds(dense, timer(built[index]), arguments.seconds)
            foreign = watch.conditions["foreign_cores"]
            rows[index] = {"dense": first, "candidate": second, "foreign": foreign}
    ordered = [rows[index] for index in sorted(rows)]
    return {"reference": float(alone.mean()), "rows": ordered}


def fresh(arguments: argparse.Namespace, loaded: bool) -> dict[str, Any]:
    """A session in a fresh process."""
    with neighbour(loaded):
        found = in_a_fresh_process(__file__, arguments)
    return {"kind": LOADED if loaded else QUIET, **found}


def sessions(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Alternate quiet and loaded sessions, so that drift of the machine affects both."""
    raw = arguments.raw
    if raw is not None and raw.exists():
        found: list[dict[str, Any]] = json.loads(raw.read_text(encoding="utf-8"))
        return found
    build_all(arguments)
    found = []
    for number in range(arguments.sessions):
        found.append(fresh(arguments, loaded=number % 2 == 1))
        foreign = np.mean([row["foreign"] for row in found[-1]["rows"]])
        print(f"session {number}, {found[-1]['kind']}: {foreign:.2f} foreign cores", flush=True)
        if raw is not None:
            raw.write_text(json.dumps(found), encoding="utf-8")
    return found


def estimates(session: dict[str, Any], estimator: Callable[[Raw], float]) -> np.ndarray:
    """(candidates,) ratios."""
    reference = session["reference"]
    return np.array(
        [
            estimator(Raw(np.array(row["dense"]), np.array(row["candidate"]), reference))
            for row in session["rows"]
        ]
    )


def agreement(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> str:
    """Kendall's tau and the median difference, averaged over pairs of sessions."""
    found = [
        (float(kendalltau(a, b).statistic), float(np.median(np.abs(a - b) / b))) for a, b in pairs
    ]
    if not found:
        return f"{'-':>16}"
    tau, difference = np.mean(found, axis=0)
    return f"{tau:>7.3f} {difference:>8.2%}"


def report(found: list[dict[str, Any]]) -> None:
    print(f"\n{'tau, median difference':36}{'quiet':>16}{'neighbour':>18}{'one of each':>18}")
    for name, estimator in ESTIMATORS.items():
        by_kind: dict[str, list[np.ndarray]] = {QUIET: [], LOADED: []}
        for session in found:
            by_kind[session["kind"]].append(estimates(session, estimator))
        quiet, loaded = by_kind.values()
        pairs = (combinations(quiet, 2), combinations(loaded, 2), product(loaded, quiet))
        print(f"{name:36}" + "  ".join(map(agreement, pairs)))


def main() -> None:
    parser = options(__doc__ or "", candidates=16)
    parser.add_argument("--sessions", type=int, default=4)
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(once(arguments)))
        return
    print(f"{arguments.study}, {arguments.candidates} candidates, {cpu_name()}")
    report(sessions(arguments))


if __name__ == "__main__":
    main()
