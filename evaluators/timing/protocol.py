"""The timing protocol: blocks of a reference model and of the candidate alternate in rounds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import cycle

import numpy as np

from paretoformer.evaluators.timing.intervals import ROUNDS, Reference, Timed, undelayed
from paretoformer.evaluators.timing.passes import Pass

WARM_UP_RUNS = 10
WARM_UP_SECONDS = 1.0
BLOCK_SECONDS = 0.03
"""Duration of a block of forwards: far longer than the clock's resolution."""
REFERENCE_TIMES = 8
REFERENCE_SECONDS = 30.0
"""The models that others alternate with get min(8 x budget, 30 s), to include undisturbed
periods."""
FEWER_TIMES = 2
"""Multiple of the budget in a study with minutes. Candidates are compared by ratios, which do not
depend on it."""
SETTLE_SECONDS = 0.04
"""Untimed run after a switch of models, until forwards take as long as they do alone."""
PATIENCE = 1.0
"""Extra time for rounds that are left out, as a multiple of the budget."""


@dataclass(frozen=True)
class TimingProtocol:
    """When a timing ends.

    width: stop when the 95% interval of the mean is narrower than this share of the mean.
    seconds: time budget; at most twice as long if rounds are left out.
    reference_times: budget of the models that others alternate with, as a multiple of `seconds`; at
    most 30 s. calls: forwards in what is timed as one, which is then their mean.
    """

    width: float = 0.02
    seconds: float = 4.0
    reference_times: int = REFERENCE_TIMES
    calls: int = 1

    @property
    def of_reference(self) -> TimingProtocol:
        """For a model that others alternate with: they inherit its error."""
        long = min(self.reference_times * self.seconds, REFERENCE_SECONDS)
        return replace(self, seconds=max(self.seconds, long))

    @property
    def warm_up_runs(self) -> int:
        """At least two: the first one at a new length may compile."""
        return max(2, math.ceil(WARM_UP_RUNS / self.calls))


def time_alone(timed: Callable[[], float], protocol: TimingProtocol) -> Timed:
    """Time one model alone, in blocks."""
    warm_up(timed, runs=protocol.warm_up_runs)
    block = _block(timed, protocol.calls)
    times: list[float] = []
    start = time.perf_counter()
    seconds = protocol.of_reference.seconds
    while len(times) < ROUNDS or time.perf_counter() - start < seconds:
        times.append(block())
    samples = np.asarray(times)
    counts = undelayed(samples)
    return Timed(samples[counts], left_out=1 - float(counts.mean()), between=0.0)


def time_interleaved(
    other: Callable[[], float],
    candidate: Callable[[], float],
    protocol: TimingProtocol,
    reference: Reference,
) -> Timed:
    """Ratios candidate/other of rounds A B B A, multiplied by the other model's `reference`."""
    warm_up(other, candidate, runs=protocol.warm_up_runs)
    a, b = _block(other, protocol.calls), _block(candidate, protocol.calls)
    others: list[tuple[float, float]] = []
    candidates: list[tuple[float, float]] = []
    settle(other)
    start = time.perf_counter()
    while True:
        before = a()
        settle(candidate)
        candidates.append((b(), b()))
        settle(other)
        others.append((before, a()))
        if len(others) < ROUNDS:
            continue
        timed = Timed.of_rounds(np.array(others), np.array(candidates), reference)
        elapsed = time.perf_counter() - start
        enough = len(timed.samples) >= ROUNDS
        spent = elapsed * (1 - timed.left_out) > protocol.seconds
        late = elapsed > (1 + PATIENCE) * protocol.seconds
        if late or (enough and (spent or timed.is_within(protocol.width / 2))):
            return timed


def settle(timed: Callable[[], float]) -> None:
    """Call untimed until a model runs as it does alone.

    Threads of the previous model spin for some milliseconds after its last forward, and its weights
    fill the caches. Example: MiniLM in OpenVINO after four forwards of torch, on 2 cores of a Xeon:
    10.9, 6.1, 5.7, 5.3, 5.2, 5.0 ms; after eight forwards 4.8 ms, as when alone.
    """
    calls = cycle(timed.calls if isinstance(timed, Pass) else (timed,))  # a pass may take long
    start = time.perf_counter()
    while True:
        next(calls)()
        if time.perf_counter() - start >= SETTLE_SECONDS:
            return


def warm_up(*timed: Callable[[], float], runs: int = WARM_UP_RUNS) -> None:
    """Alternate the models, at least `runs` runs each and 1 s, to warm up caches and clocks."""
    start = time.perf_counter()
    done = 0
    while done < runs or time.perf_counter() - start < WARM_UP_SECONDS:
        for run in timed:
            run()
        done += 1


def _block(timed: Callable[[], float], calls: int) -> Callable[[], float]:
    """A function that returns the mean time over one block of forwards.

    calls: forwards in a run of `timed`, which returns their mean.
    """
    runs = max(1, round(BLOCK_SECONDS * 1e3 / max(calls * timed(), 1e-3)))
    return lambda: sum(timed() for _ in range(runs)) / runs
