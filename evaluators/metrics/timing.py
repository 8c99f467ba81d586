"""The base class of metrics that time a call."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
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
from paretoformer.evaluators.timing.passes import Pass
from paretoformer.evaluators.timing.protocol import time_alone, time_interleaved
from paretoformer.evaluators.timing.quiet import measure_in_quiet


class Timing(Cost):
    """Mean time of one call of a model, in alternation with the dense model.

    Inputs of different lengths are called one after the other, and their mean counts as one call.

    Blocks of calls of the dense model A and the candidate B alternate in rounds A B B A, so changes
    in machine speed affect both. A sample is the ratio B/A of one round, multiplied by the dense
    model's latency in this run (the row `dense`): so candidates measured an hour apart are
    comparable. The dense model's own samples are plain times. Rounds continue until the interval of
    the mean is narrow or the time budget is spent (`TimingProtocol`).

    A thread that waits for another process delays its block several-fold. Rounds with such a block
    are left out (`DELAYED`); `left_out` is their share, and `slowdown` the dense model's time in
    the other rounds divided by its latency. This is the most repeatable of the estimators in
    `benchmarks/estimators.py`, on quiet and on shared machines.

    The interval is the 95% interval of a repeated timing: Student's t over the rounds of both, plus
    the variation between sessions (`SESSION`), which the dense model, as the reference, does not
    have. A timing is stable if few rounds were delayed and the others scatter little.

    A timing waits for a quiet machine and is repeated if others disturb it, as long as the study
    allows. After that it is `disturbed`, as is every timing relative to a disturbed one of the
    dense model.
    """

    unit = "ms"
    exclusive = True

    @abstractmethod
    def calls(self, bench: Bench, model: Any) -> Sequence[Callable[[], Any]]:
        """The calls of a pass, of the dense model or of the candidate's runnable."""

    def tokens(self, bench: Bench) -> Sequence[int]:
        """Tokens of each call's texts, if they differ."""
        return ()

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
                Pass(clock, self.calls(bench, model)) for model in (bench.dense, bench.runnable)
            )
            protocol = replace(bench.protocol, calls=len(dense.calls))
            if bench.reference is None:
                timed = time_alone(dense, protocol)
            else:
                reference = bench.reference[self.name].value
                timed = time_interleaved(dense, candidate, protocol, reference)
        shown = dense if bench.reference is None else candidate
        by_length = shown.by_length(self.tokens(bench), timed.mean)
        return summary(timed, watch.conditions | by_length)
