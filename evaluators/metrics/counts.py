"""Exact costs of the rebuilt model: parameters and floating-point operations."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.metric import Cost
from paretoformer.evaluators.metrics.registry import register
from paretoformer.spaces.models.surgery import count_parameters


class Parameters(Cost):
    """Number of parameters of the rebuilt model."""

    name = "parameters"
    unit = "count"
    of_size = True

    def measure(self, bench: Bench) -> Measurement:
        return Measurement.exact(count_parameters(bench.model), self.unit)


class Flops(Cost):
    """Floating-point operations of one forward; a multiply-add counts as two.

    Counted by torch, with formulas for operators that it lacks: the CPU kernel of sdpa (without
    which dense attention counts as 0), sorts and cumulative sums. Element-wise operations, softmax,
    normalisation, gathers and other copies are not counted.
    """

    name = "flops"
    unit = "count"

    def measure(self, bench: Bench) -> Measurement:
        batch = bench.workload.timing_batch(bench.target)
        counter = FlopCounterMode(display=False, custom_mapping=_FORMULAS)
        with torch.inference_mode(), counter:
            bench.model(**batch)
        return Measurement.exact(counter.get_total_flops(), self.unit)


def _cpu_flash(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    """query, key, value: shapes (batch, heads, length, head_dim)."""
    return int(sdpa_flop_count(query, key, value))


def _sort(shape: Any, *args: Any, **kwargs: Any) -> int:
    """n log₂ n comparisons along the last axis."""
    return int(math.prod(shape) * math.log2(max(shape[-1], 2)))


def _topk(shape: Any, count: int, *args: Any, **kwargs: Any) -> int:
    """n log₂ k comparisons along the last axis."""
    return int(math.prod(shape) * math.log2(max(count, 2)))


def _each(shape: Any, *args: Any, **kwargs: Any) -> int:
    """One operation per element."""
    return int(math.prod(shape))


_aten = torch.ops.aten
_FORMULAS: dict[Any, Any] = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _cpu_flash,
    _aten.sort: _sort,
    _aten.topk: _topk,
    _aten.cumsum: _each,
}


register(Parameters())
register(Flops())
