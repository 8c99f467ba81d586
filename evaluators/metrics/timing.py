"""What metrics that time something have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.metric import Cost
from paretoformer.evaluators.timing.clocks import stopwatch
from paretoformer.evaluators.timing.conditions import Watch
from paretoformer.evaluators.timing.intervals import summary
from paretoformer.evaluators.timing.protocol import time_alone, time_interleaved
from paretoformer.evaluators.timing.quiet import measure_in_quiet


class Timing(Cost):
    """The mean time of one call of a model, in alternation with the dense model.

    Blocks of calls of the dense model A and of the candidate B alternate in rounds A B B A, so a
    machine that slows down or speeds up does it to both. A sample is the ratio B/A of one round,
    times the dense model's latency of this run (the row `dense`): so the latencies of candidates
    measured an hour apart compare. The dense model's own samples are its plain times. Rounds go on
    until the interval of the mean is narrow, or a time budget is spent (`TimingProtocol`).

    A block is delayed by a factor when one of its threads waits for another process. Rounds with
    such a block are left out (`DELAYED`); `left_out` is their share, and `slowdown` the dense
    model's time in the other rounds divided by its latency. Of the estimators compared in
    `benchmarks/estimators.py` this is the most repeatable, on a quiet machine and on a shared one.

    The 95% interval is that of a repeated timing: Student's t over the rounds of both, plus the
    variation between sessions (`SESSION`), which the dense model, being the reference, does not
    have. A timing is stable if few of its rounds were delayed and the others scatter little.

    A timing waits until other processes leave the machine alone, and is repeated where they did
    not, as long as the study has patience. After that it is `disturbed`, as is every timing that
    refers to a disturbed one of the dense model.
    """

    unit = "ms"
    exclusive = True

    @abstractmethod
    def call(self, bench: Bench, model: Any) -> Callable[[], Any]:
        """What is timed of the dense model, or of what runs the candidate."""

    def measure(self, bench: Bench) -> Measurement | None:
        measured = measure_in_quiet(bench.quiet, partial(self._once, bench))
        if bench.reference is None:
            return measured
        on_disturbed = bench.reference[self.name].disturbed
        return replace(measured, disturbed=measured.disturbed or on_disturbed)

    def _once(self, bench: Bench) -> Measurement:
        clock = stopwatch(bench.target.device)
        with torch.inference_mode(), Watch(bench.target.device) as watch:
            dense, candidate = (
                partial(clock, self.call(bench, each)) for each in (bench.dense, bench.runnable)
            )
            if bench.reference is None:
                timed = time_alone(dense, bench.protocol)
            else:
                reference = bench.reference[self.name].value
                timed = time_interleaved(dense, candidate, bench.protocol, reference)
        return summary(timed, watch.conditions)
