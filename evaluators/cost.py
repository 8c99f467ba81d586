"""Counted costs of the rebuilt model: parameters and floating-point operations."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from paretoformer.evaluators.measurement import Measurement
from paretoformer.evaluators.metric import Direction, Metric, Subject
from paretoformer.spaces.surgery import count_parameters


class Parameters(Metric):
    """Numbers in the weights of the rebuilt model."""

    name = "parameters"
    unit = "count"
    direction: ClassVar[Direction] = "minimize"

    def measure(self, subject: Subject) -> Measurement:
        return Measurement.exact(count_parameters(subject.model), self.unit)


class Flops(Metric):
    """Floating-point operations of one forward of the target, a multiply-add as two.

    Counted by torch's own counter, with a formula for the CPU kernel behind sdpa that it lacks:
    without it dense attention would count as nothing. Element-wise operations are not counted.
    """

    name = "flops"
    unit = "count"
    direction: ClassVar[Direction] = "minimize"

    def measure(self, subject: Subject) -> Measurement:
        batch = subject.workload.timing_batch(subject.target)
        counter = FlopCounterMode(display=False, custom_mapping=_FORMULAS)
        with torch.inference_mode(), counter:
            subject.model(**batch)
        return Measurement.exact(counter.get_total_flops(), self.unit)


def _cpu_flash(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    """query, key, value: shapes (batch, heads, length, head_dim)."""
    return int(sdpa_flop_count(query, key, value))


_FORMULAS = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _cpu_flash}
