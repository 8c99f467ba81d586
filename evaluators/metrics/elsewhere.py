"""Quality on texts of another origin, which chose nothing: what an answer is worth elsewhere."""

from __future__ import annotations

from dataclasses import replace

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.data.examples import OTHER, elsewhere
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.metric import Metric, Quality


class Elsewhere(Quality):
    """A quality metric on the examples of `data.other`, in the confirmation only.

    Cuts and repairs follow the texts that they see, so a number holds for texts like those.
    """

    confirms = True

    def __init__(self, of: Metric) -> None:
        self.of = of
        named = {"name": elsewhere(of.name), "unit": of.unit, "direction": of.direction}
        vars(self).update(named)  # of this metric, unlike those of other classes

    def measure(self, bench: Bench) -> Measurement | None:
        split = bench.workload.splits[OTHER]
        return self.of.measure(replace(bench, split=split, steering=None, memo={}))
