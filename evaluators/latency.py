"""Latency: the median time of one forward, measured beside the dense model."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from scipy.stats import bootstrap

from paretoformer.evaluators.measurement import Measurement
from paretoformer.evaluators.metric import Direction, Metric, Subject

WARM_UP_SECONDS = 0.25
SECONDS = 1.5
ROUNDS = 8
"""A timing goes on until it has both lasted SECONDS and done this many rounds of A B B A."""
UNSTABLE = 0.10
"""A timing whose interquartile range is over this share of its median is not stable."""


class Latency(Metric):
    """Milliseconds of one forward at (batch_size, sequence_length) of the target, no padding.

    Forwards of the dense model A and of the candidate B alternate in rounds A B B A, so a machine
    that slows down or speeds up does it to both. A sample is the ratio B/A of one round, times the
    dense model's latency of this run (the row `dense`): so the latencies of candidates measured an
    hour apart compare. The dense model's own samples are its plain times.
    """

    name = "latency_ms"
    unit = "ms"
    direction: ClassVar[Direction] = "minimize"
    exclusive = True

    def measure(self, subject: Subject) -> Measurement:
        batch = subject.workload.timing_batch(subject.target)
        synchronize = synchronizer(subject.target.device)

        def forward(model: torch.nn.Module) -> float:
            start = time.perf_counter()
            model(**batch)
            synchronize()
            return (time.perf_counter() - start) * 1e3

        with torch.inference_mode():
            if subject.dense_measurements is None or subject.model is subject.dense:
                return _summary(_plain(lambda: forward(subject.dense)))
            reference = subject.dense_measurements[self.name].value
            ratios = _interleaved(lambda: forward(subject.dense), lambda: forward(subject.model))
            return _summary(ratios * reference)


def _plain(timed: Callable[[], float]) -> np.ndarray:
    """Times of one model alone."""
    _warm_up(timed)
    samples: list[float] = []
    start = time.perf_counter()
    while len(samples) < 4 * ROUNDS or time.perf_counter() - start < SECONDS:
        samples.append(timed())
    return np.asarray(samples)


def _interleaved(dense: Callable[[], float], candidate: Callable[[], float]) -> np.ndarray:
    """Ratios candidate/dense, one a round of A B B A."""
    _warm_up(dense)
    _warm_up(candidate)
    ratios: list[float] = []
    start = time.perf_counter()
    while len(ratios) < ROUNDS or time.perf_counter() - start < SECONDS:
        first, *second, last = dense(), candidate(), candidate(), dense()
        ratios.append(sum(second) / (first + last))
    return np.asarray(ratios)


def _warm_up(timed: Callable[[], float]) -> None:
    start = time.perf_counter()
    timed()
    while time.perf_counter() - start < WARM_UP_SECONDS:
        timed()


def _summary(samples: np.ndarray) -> Measurement:
    """The median of the samples with its percentile bootstrap interval."""
    interval = bootstrap(
        (samples,), np.median, n_resamples=999, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    median = float(np.median(samples))
    quartiles = np.quantile(samples, (0.25, 0.75))
    return Measurement(
        value=median,
        low=float(interval.low),
        high=float(interval.high),
        unit=Latency.unit,
        samples=tuple(samples.tolist()),
        stable=bool(quartiles[1] - quartiles[0] <= UNSTABLE * median),
    )


def synchronizer(device: str) -> Callable[[], None]:
    """Waits until the device has done all that it was given."""
    kind = torch.device(device).type
    if kind == "cuda":
        return partial(torch.cuda.synchronize, device)
    if kind == "mps":
        return torch.mps.synchronize
    return lambda: None
