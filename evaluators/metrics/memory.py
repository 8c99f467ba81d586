"""Memory: weights plus the peak of what one forward allocates."""

from __future__ import annotations

import torch

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.metric import Cost
from paretoformer.evaluators.metrics.registry import register
from paretoformer.spaces.runtimes import parse

MEGABYTE = 1e6


class Memory(Cost):
    """Megabytes (10^6 bytes) of weights and peak activations of one forward of the target.

    From the allocator, not from the size of the process, so it repeats to the byte on a CPU. The
    inputs are not counted: they are there before the model runs. Runtimes with an allocator
    of their own that cannot be asked have no such number.
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
