"""Memory: weights plus peak activations of one forward."""

from __future__ import annotations

import torch

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.metric import Cost
from paretoformer.evaluators.metrics.registry import register
from paretoformer.spaces.runtimes import parse

MEGABYTE = 1e6


class Memory(Cost):
    """Megabytes (10^6 bytes) of weights and peak activations of one forward.

    Measured at the allocator, not as process size, so on a CPU it repeats to the byte. Inputs are
    not counted. Unavailable in runtimes whose allocator cannot be observed.
    """

    name = "memory_mb"
    unit = "MB"

    def measure(self, bench: Bench) -> Measurement | None:
        batch = bench.workload.timing_batch(bench.target)
        with torch.inference_mode():
            peak = bench.runnable.peak_bytes(batch)
        if peak is None:
            return None
        return Measurement.exact((bench.runnable.weight_bytes + peak) / MEGABYTE, self.unit)

    def unmeasurable_reason(self, runtime: str) -> str:
        return "" if parse(runtime)[0].tells_peak else "its allocator cannot be asked"


register(Memory())
