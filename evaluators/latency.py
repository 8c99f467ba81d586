"""Latency: the median time of one forward, measured beside the dense model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from scipy.stats import bootstrap

from paretoformer.evaluators import pace
from paretoformer.evaluators.conditions import Watch
from paretoformer.evaluators.measurement import Measurement
from paretoformer.evaluators.metric import Direction, Metric, Subject

WARM_UP_RUNS = 10
WARM_UP_SECONDS = 1.0
BLOCK_SECONDS = 0.01
"""A block is as many forwards as take at least so long: far longer than the clock's step."""
ROUNDS = 8
"""The fewest rounds of blocks."""
REFERENCE_TIMES = 8
REFERENCE_SECONDS = 30.0
"""The dense model, whose pace all others refer to, is timed so many times as long, or so many
seconds where that is less: a machine may need it to show its undisturbed pace."""
PATIENCE = 1.0
"""For rounds at the reference's pace a timing waits so many times its budget longer."""
SESSION = 0.01
"""Standard deviation between two timings of one model at different times, as a share, which no
number of rounds in one of them shows: `benchmarks/repeatability.py`."""
PACE_SLOPE = 0.1
"""The same for a timing at another pace than its reference's, for each e-fold between the two: the
ratios of candidates of small operations to dense moved by 4% when the pace changed by 28%."""
RESAMPLES = 999
UNSTABLE_SPREAD = 0.10
"""Interquartile range over the median, above which a timing is not stable."""
UNSTABLE_RANGE = 1.10
"""Largest over smallest sample, above which a timing is not stable."""
FOREIGN_CORES = 0.2
"""A timing beside which others kept more cores than this busy is repeated."""
ATTEMPTS = 2


@dataclass(frozen=True)
class TimingProtocol:
    """How long a timing goes on.

    width: until the 95% interval of the median is narrower than this share of it,
    seconds: or so much time is spent; twice as much where the machine changes its pace.

    The dense model's own timing, to which all others refer, always takes eight times as much, or
    half a minute where that is less.
    """

    width: float = 0.02
    seconds: float = 4.0


class Latency(Metric):
    """Milliseconds of one forward at (batch_size, sequence_length) of the target, no padding.

    Blocks of forwards of the dense model A and of the candidate B alternate in rounds A B B A, so a
    machine that slows down or speeds up does it to both. A sample is the ratio B/A of one round,
    times the dense model's latency of this run (the row `dense`): so the latencies of candidates
    measured an hour apart compare. The dense model's own samples are its plain times. Rounds go on
    until the interval of the median is narrow, or a time budget is spent (`TimingProtocol`).

    A machine whose neighbours disturb it does not slow down every operation alike: the ratio itself
    moves. So the dense model's blocks serve as a probe, and only rounds count in which it ran at
    the pace of its row; `off_pace` is the share of the others. Where there are too few after all
    patience, all count, the timing is not stable, and `slowdown` tells how far off it was.

    The interval is one for what a second timing would give: a percentile bootstrap of the median
    over rounds, of both timings, and what two of them differ by beyond that (`SESSION`,
    `PACE_SLOPE`), which the dense model, being the reference, does not have. Other processes' use
    of the processor is watched, recorded, and the timing repeated when it was considerable.
    """

    name = "latency_ms"
    unit = "ms"
    direction: ClassVar[Direction] = "minimize"
    exclusive = True

    def measure(self, subject: Subject) -> Measurement:
        found = [self._once(subject)]
        while len(found) < ATTEMPTS and found[-1].conditions["foreign_cores"] > FOREIGN_CORES:
            found.append(self._once(subject))
        return min(found, key=lambda each: (not each.stable, each.conditions["foreign_cores"]))

    def _once(self, subject: Subject) -> Measurement:
        batch = subject.workload.timing_batch(subject.target)
        clock = stopwatch(subject.target.device)

        def forward(model: torch.nn.Module) -> float:
            return clock(lambda: model(**batch))

        dense, candidate = (partial(forward, m) for m in (subject.dense, subject.model))
        with torch.inference_mode(), Watch(subject.target.device) as watch:
            if subject.dense_measurements is None or subject.model is subject.dense:
                timed = _plain(dense, subject.protocol)
            else:
                reference = subject.dense_measurements[self.name].value
                timed = _interleaved(dense, candidate, subject.protocol, reference)
        return summary(timed, watch.conditions)


@dataclass(frozen=True)
class Timed:
    """The rounds of one timing that count.

    samples: their milliseconds. held: whether they were at the reference's pace. slowdown: the
    dense model's time in them over the reference. off_pace: the share of all rounds that were at
    another pace. between: standard deviation, as a share, of what a timing at another time would
    differ by.
    """

    samples: np.ndarray
    held: bool = True
    slowdown: float = 1.0
    off_pace: float = 0.0
    between: float = SESSION

    @classmethod
    def at_pace(
        cls, samples: np.ndarray, dense: np.ndarray, reference: float, session: float = SESSION
    ) -> Timed:
        """The rounds in which the dense model kept the reference's pace, or all, if too few did.

        samples, dense: (rounds,). session: `between` at the reference's pace.
        """
        kept = pace.kept(dense, reference)
        held = int(kept.sum()) >= ROUNDS
        ratios = (dense[kept] if held else dense) / reference
        apart = 0.0 if held else float(np.abs(np.log(ratios)).mean())
        return cls(
            samples=samples[kept] if held else samples,
            held=held,
            slowdown=float(np.median(ratios)),
            off_pace=1 - float(kept.mean()),
            between=float(np.hypot(session, PACE_SLOPE * apart)),
        )


def _plain(timed: Callable[[], float], protocol: TimingProtocol) -> Timed:
    """Times of one model alone, in blocks, at the fastest pace that it held."""
    _warm_up(timed)
    block = _block(timed)
    times: list[float] = []
    start = time.perf_counter()
    seconds = max(protocol.seconds, min(REFERENCE_TIMES * protocol.seconds, REFERENCE_SECONDS))
    while len(times) < ROUNDS or time.perf_counter() - start < seconds:
        times.append(block())
    found = np.asarray(times)
    return Timed.at_pace(found, found, pace.fastest(found), session=0.0)


def _interleaved(
    dense: Callable[[], float],
    candidate: Callable[[], float],
    protocol: TimingProtocol,
    reference: float,
) -> Timed:
    """Ratios candidate/dense, one a round of A B B A, times the dense model's reference."""
    _warm_up(dense, candidate)
    a, b = _block(dense), _block(candidate)
    denses: list[float] = []
    ratios: list[float] = []
    start = time.perf_counter()
    while True:
        first, *second, last = a(), b(), b(), a()
        denses.append((first + last) / 2)
        ratios.append(sum(second) / (first + last))
        if len(ratios) < ROUNDS:
            continue
        timed = Timed.at_pace(np.asarray(ratios) * reference, np.asarray(denses), reference)
        elapsed = time.perf_counter() - start
        spent = elapsed * (1 - timed.off_pace) > protocol.seconds
        low, median, high = median_interval(timed.samples)
        narrow = timed.held and high - low <= protocol.width * median
        if narrow or spent or elapsed > (1 + PATIENCE) * protocol.seconds:
            return timed


def _warm_up(*timed: Callable[[], float]) -> None:
    """In turns, for both caches and clocks: at least ten runs of each, and one second."""
    start = time.perf_counter()
    runs = 0
    while runs < WARM_UP_RUNS or time.perf_counter() - start < WARM_UP_SECONDS:
        for each in timed:
            each()
        runs += 1


def _block(timed: Callable[[], float]) -> Callable[[], float]:
    """The mean time of as many runs as take BLOCK_SECONDS."""
    runs = max(1, round(BLOCK_SECONDS * 1e3 / max(timed(), 1e-3)))
    return lambda: sum(timed() for _ in range(runs)) / runs


def median_interval(samples: np.ndarray) -> tuple[float, float, float]:
    """(low, median, high): the 95% interval of a median between two order statistics.

    It needs no resampling, so it can be asked after every sample. Source: Conover 1999, Practical
    Nonparametric Statistics, section 3.2; ranks n/2 ∓ 1.96 √n/2.
    """
    ordered = np.sort(samples)
    count = len(ordered)
    reach = 0.98 * count**0.5
    low = max(int(np.floor(count / 2 - reach)) - 1, 0)
    high = min(int(np.ceil(count / 2 + reach)), count - 1)
    return float(ordered[low]), float(np.median(ordered)), float(ordered[high])


def summary(timed: Timed, conditions: Mapping[str, float] | None = None) -> Measurement:
    """The median of the samples with its interval.

    It is stable when the samples are close, and the reference's pace was held.
    """
    samples = timed.samples
    interval = bootstrap(
        (samples,),
        np.median,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    median = float(np.median(samples))
    between = 1.96 * median * timed.between
    below, above = (2**0.5 * abs(end - median) for end in (interval.low, interval.high))
    quartiles = np.quantile(samples, (0.25, 0.75))
    spread = float(quartiles[1] - quartiles[0]) / median
    close = spread <= UNSTABLE_SPREAD and samples.max() <= UNSTABLE_RANGE * samples.min()
    paces = {"slowdown": round(timed.slowdown, 3), "off_pace": round(timed.off_pace, 3)}
    return Measurement(
        value=median,
        low=max(0.0, median - float(np.hypot(below, between))),
        high=median + float(np.hypot(above, between)),
        unit=Latency.unit,
        samples=tuple(samples.tolist()),
        stable=bool(close and timed.held),
        conditions={**(conditions or {}), **paces},
    )


Stopwatch = Callable[[Callable[[], object]], float]
"""Milliseconds that a call takes until the device has done it."""


def stopwatch(device: str) -> Stopwatch:
    """CUDA events on a GPU of that kind, which do not count the wait for the driver; else the
    processor's clock."""
    if torch.device(device).type == "cuda":
        return partial(_by_events, torch.device(device))
    return partial(_by_clock, synchronizer(device))


def _by_events(device: torch.device, call: Callable[[], object]) -> float:
    with torch.cuda.device(device):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))


def _by_clock(synchronize: Callable[[], None], call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    synchronize()
    return (time.perf_counter() - start) * 1e3


def synchronizer(device: str) -> Callable[[], None]:
    """Waits until the device has done all that it was given."""
    kind = torch.device(device).type
    if kind == "cuda":
        return partial(torch.cuda.synchronize, device)
    if kind == "mps":
        return torch.mps.synchronize
    return lambda: None
