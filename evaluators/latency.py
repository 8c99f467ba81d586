"""Latency: the median time of one forward, measured beside the dense model."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from scipy.stats import bootstrap

from paretoformer.evaluators.conditions import Watch
from paretoformer.evaluators.measurement import Measurement
from paretoformer.evaluators.metric import Direction, Metric, Subject

WARM_UP_RUNS = 10
WARM_UP_SECONDS = 1.0
BLOCK_SECONDS = 0.01
"""A block is as many forwards as take at least so long: far longer than the clock's step."""
ROUNDS = 8
"""The fewest rounds of blocks."""
RESAMPLES = 999
UNSTABLE_SPREAD = 0.10
"""Interquartile range over the median, above which a timing is not stable."""
UNSTABLE_RANGE = 1.10
"""Largest over smallest sample, above which a timing that spent its budget is not stable."""
FOREIGN_CORES = 0.2
"""A timing beside which others kept more cores than this busy is repeated."""
ATTEMPTS = 2


@dataclass(frozen=True)
class TimingProtocol:
    """How long a timing goes on.

    width: until the 95% interval of the median is narrower than this share of it,
    seconds: or so much time is spent.
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

    The interval is a percentile bootstrap of the median over rounds. Other processes' use of the
    processor is watched, recorded, and the timing repeated when it was considerable.
    """

    name = "latency_ms"
    unit = "ms"
    direction: ClassVar[Direction] = "minimize"
    exclusive = True

    def measure(self, subject: Subject) -> Measurement:
        found = [self._once(subject)]
        while len(found) < ATTEMPTS and found[-1].conditions["foreign_cores"] > FOREIGN_CORES:
            found.append(self._once(subject))
        return min(found, key=lambda each: each.conditions["foreign_cores"])

    def _once(self, subject: Subject) -> Measurement:
        batch = subject.workload.timing_batch(subject.target)
        clock = stopwatch(subject.target.device)

        def forward(model: torch.nn.Module) -> float:
            return clock(lambda: model(**batch))

        reference = None
        if subject.dense_measurements is not None and subject.model is not subject.dense:
            reference = subject.dense_measurements[self.name].value
        with torch.inference_mode(), Watch(subject.target.device) as watch:
            if reference is None:
                samples = _plain(lambda: forward(subject.dense), subject.protocol)
            else:
                dense, candidate = (partial(forward, m) for m in (subject.dense, subject.model))
                samples = _interleaved(dense, candidate, subject.protocol) * reference
        return summary(samples, subject.protocol.width, watch.conditions)


def _plain(timed: Callable[[], float], protocol: TimingProtocol) -> np.ndarray:
    """Times of one model alone, in blocks."""
    _warm_up(timed)
    block = _block(timed)
    return _until_narrow(block, protocol)


def _interleaved(
    dense: Callable[[], float], candidate: Callable[[], float], protocol: TimingProtocol
) -> np.ndarray:
    """Ratios candidate/dense, one a round of A B B A."""
    _warm_up(dense, candidate)
    a, b = _block(dense), _block(candidate)

    def ratio() -> float:
        first, *second, last = a(), b(), b(), a()
        return sum(second) / (first + last)

    return _until_narrow(ratio, protocol)


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


def _until_narrow(sample: Callable[[], float], protocol: TimingProtocol) -> np.ndarray:
    """Samples until the median's interval is narrow, or the time is spent."""
    samples: list[float] = []
    start = time.perf_counter()
    while True:
        samples.append(sample())
        if len(samples) < ROUNDS:
            continue
        found = np.asarray(samples)
        if is_narrow(found, protocol.width) or time.perf_counter() - start > protocol.seconds:
            return found


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


def is_narrow(samples: np.ndarray, width: float) -> bool:
    """Whether the median's 95% interval is no wider than this share of the median."""
    low, median, high = median_interval(samples)
    return high - low <= width * median


def summary(
    samples: np.ndarray, width: float, conditions: dict[str, float] | None = None
) -> Measurement:
    """The median of the samples with its percentile bootstrap interval.

    It is stable when its quartiles are close, and it either became as narrow as `width` or has no
    far outlier: a single slow round moves no median, but where the rounds did not agree before the
    time was spent, it is told.

    samples: (rounds,) milliseconds.
    """
    interval = bootstrap(
        (samples,),
        np.median,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    median = float(np.median(samples))
    quartiles = np.quantile(samples, (0.25, 0.75))
    spread = float(quartiles[1] - quartiles[0]) / median
    even = is_narrow(samples, width) or samples.max() <= UNSTABLE_RANGE * samples.min()
    stable = spread <= UNSTABLE_SPREAD and even
    return Measurement(
        value=median,
        low=float(interval.low),
        high=float(interval.high),
        unit=Latency.unit,
        samples=tuple(samples.tolist()),
        stable=bool(stable),
        conditions=conditions or {},
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
