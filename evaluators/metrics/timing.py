"""The base class of metrics that time a call."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.metric import Cost
from paretoformer.evaluators.timing.clocks import stopwatch
from paretoformer.evaluators.timing.conditions import Watch
from paretoformer.evaluators.timing.intervals import Reference, summary
from paretoformer.evaluators.timing.passes import Pass
from paretoformer.evaluators.timing.protocol import time_alone, time_interleaved
from paretoformer.evaluators.timing.quiet import measure_in_quiet


class Timing(Cost):
    """Mean time of one call of a model, in alternation with the dense model or, in a compiled
    runtime, with the study's baseline: the uncompressed model in such a runtime, which slows down
    like the candidate while other guests of the host are busy.

    Inputs of different lengths are called one after the other, and their mean counts as one call.

    Blocks of calls of the other model A and the candidate B alternate in rounds A B B A, so changes
    in machine speed affect both. A sample is the ratio B/A of one round, multiplied by A's latency
    in this run: so candidates measured an hour apart are comparable. The dense model's own samples
    are plain times. Rounds continue until the interval of the mean is narrow or the time budget is
    spent (`TimingProtocol`).

    A thread that waits for another process delays its block several-fold. Rounds with such a block
    are left out (`DELAYED`); `left_out` is their share, and `slowdown` (`baseline_slowdown`) the
    time of A in the other rounds divided by its latency. This is the most repeatable of the
    dozen estimators that were compared, on quiet and on shared machines.

    The interval is the 95% interval of a repeated timing: Student's t over the rounds of both, plus
    the variation between sessions (`SESSION`) of this ratio and of A's to the dense model, which,
    as the reference, has none. A timing is stable if few rounds were delayed and the others scatter
    little.

    A timing waits for a quiet machine and is repeated if others disturb it, as long as the study
    allows. After that it is `disturbed`, as is every timing relative to a disturbed one.
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
        against = self._against(bench)
        measured = measure_in_quiet(bench.quiet, partial(self._once, bench, against))
        on_disturbed = against.known is not None and against.known.disturbed
        return replace(measured, disturbed=measured.disturbed or on_disturbed)

    def _against(self, bench: Bench) -> _Against:
        baseline = bench.baseline
        if baseline is not None and (known := baseline.measurements.get(self.name)) is not None:
            return _Against(baseline.runnable, known, Reference.of(known), "baseline_slowdown")
        if bench.reference is None:
            return _Against(bench.dense)
        known = bench.reference[self.name]
        return _Against(bench.dense, known, Reference(known.value))

    def _once(self, bench: Bench, against: _Against) -> Measurement:
        clock = stopwatch(bench.target.device)
        with torch.inference_mode(), Watch(bench.target.device) as watch:
            other, candidate = (
                Pass(clock, self.calls(bench, model)) for model in (against.model, bench.runnable)
            )
            protocol = replace(bench.protocol, calls=len(other.calls))
            if against.reference is None:
                timed = time_alone(other, protocol)
            else:
                timed = time_interleaved(other, candidate, protocol, against.reference)
        shown = other if against.reference is None else candidate
        by_length = shown.by_length(self.tokens(bench), timed.mean)
        return summary(timed, watch.conditions | by_length, against.pace)


@dataclass(frozen=True)
class _Against:
    """The model that a candidate alternates with, and its latency; None for the dense model alone.

    pace: name of the condition that holds its slowdown.
    """

    model: Any
    known: Measurement | None = None
    reference: Reference | None = None
    pace: str = "slowdown"
