"""An estimate of a study's duration, from a few forward passes of the dense model."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from paretoformer.evaluators.timing.clocks import stopwatch
from paretoformer.search.study.budget import distill_minutes
from paretoformer.search.study.spec import Spec
from paretoformer.search.study.subject import Subject
from paretoformer.spaces.models.families import shape_of

FORWARDS = 8
"""Forward passes to time; the first ones warm up the caches."""
START_SECONDS = 15.0
"""Time to start workers with Ray, torch and the model: once to search, once to confirm."""
BUILD_SECONDS = 3.0
"""Time to convert a candidate for its runtime, or to read it."""
SCORED = 0.6
"""Time to score an example, in full-length forward passes: many texts are shorter."""
WARM_UP_SECONDS = 1.0
TIMED = 1.5
"""A timing as a multiple of its budget: the dense model takes turns. The warm-up is extra."""
BLOCKS = 24
"""Options per layer that the block table tries."""
BLOCK_EXAMPLES = 64
"""Examples per option."""
CONFIRMED = (10, 0.45)
"""Confirmed points: the alternatives, and a share of the trials."""
MOST_CONFIRMED = 40
"""Limit for the confirmed points.

The constants fit two studies of 40 trials on MiniLM and 2 cores of a Xeon. Minutes to prepare,
search and confirm, measured (estimated): at 64 tokens (10.9 ms per forward) 0.8 (1.3), 6.9 (7.2)
and 8.3 (7.2); at 512 tokens (68.6 ms) 7.2 (6.6), 18 (18.5) and 12.9 (16.8).
"""


@dataclass(frozen=True)
class Estimate:
    """Seconds of each part of a study, computed from `forward_ms` of the dense model."""

    forward_ms: float
    prepare: float
    search: float
    distil: float
    confirm: float

    @property
    def seconds(self) -> float:
        return self.prepare + self.search + self.distil + self.confirm

    @property
    def text(self) -> str:
        """`about 25 minutes, estimated from 10.9 ms a forward`."""
        return f"{about(self.seconds)}, estimated from {self.forward_ms:.3g} ms a forward"


def about(seconds: float) -> str:
    """A duration, rounded to its uncertainty."""
    minutes = seconds / 60
    if minutes < 1.5:
        return "about a minute"
    if minutes <= 10:
        return f"about {minutes:.0f} minutes"
    if minutes <= 90:
        return f"about {5 * round(minutes / 5)} minutes"
    return f"about {minutes / 60:.1f} hours"


def estimate(spec: Spec, subject: Subject, done: int = 0, *, is_prepared: bool = False) -> Estimate:
    """Estimate a study's duration.

    done: trials that an earlier run finished. is_prepared: whether preparation was done before.
    """
    forward = forward_ms(subject)
    row = forward / 1e3 / subject.target.batch_size
    return Estimate(
        forward_ms=forward,
        prepare=0.0 if is_prepared else _prepare(spec, subject, row),
        search=START_SECONDS + max(0, spec.trials - done) * _trial(spec, subject, row),
        distil=60 * distill_minutes(spec),
        confirm=START_SECONDS + _points(spec.trials) * _point(spec, subject, row),
    )


def forward_ms(subject: Subject) -> float:
    """The fastest of a few forward passes of the dense model on the target.

    A study waits for a quiet machine, so the fastest counts. One busy core makes two threads 15x
    slower, but not a single one, so both are tried.
    """
    target = subject.target
    batch, clock = subject.workload.timing_batch(target), stopwatch(target.device)
    model = _on_target(subject)
    times = []
    for threads in {target.threads, 1}:
        with torch.inference_mode(), _threads(threads):
            times += [clock(lambda: model(**batch)) for _ in range(FORWARDS)]
    return min(times)


def _on_target(subject: Subject) -> nn.Module:
    """The dense model on the target's device and in its dtype; a copy only if that differs."""
    device, dtype = torch.device(subject.target.device), subject.target.torch_dtype
    here = next(subject.model.parameters())
    if (here.device.type, here.dtype) == (device.type, dtype):
        return subject.model
    return copy.deepcopy(subject.model).to(device=device, dtype=dtype)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _prepare(spec: Spec, subject: Subject, row: float) -> float:
    """row: seconds per text in a forward."""
    layers, _ = shape_of(subject.model.config)
    tried = BLOCKS * layers if spec.search.table else 0
    return START_SECONDS + tried * BLOCK_EXAMPLES * SCORED * row


def _trial(spec: Spec, subject: Subject, row: float) -> float:
    scored = len(subject.workload.splits["search"]) + len(subject.workload.steering)
    return _measured(scored, row, spec.timing.search_seconds, len(subject.sampled))


def _point(spec: Spec, subject: Subject, row: float) -> float:
    examples = len(subject.workload.splits["confirm"])
    return _measured(examples, row, spec.timing.confirm_seconds, len(subject.sampled))


def _measured(examples: int, row: float, seconds: float, timings: int) -> float:
    """Seconds to build a candidate, score it on `examples`, and time it `timings` times."""
    timed = timings * (WARM_UP_SECONDS + TIMED * seconds)
    return BUILD_SECONDS + SCORED * examples * row + timed


def _points(trials: int) -> float:
    least, share = CONFIRMED
    return min(least + share * trials, MOST_CONFIRMED)
