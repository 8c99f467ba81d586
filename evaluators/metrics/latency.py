"""Latency: the mean time of one forward, in alternation with the dense model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.registry import register
from paretoformer.evaluators.metrics.timing import Timing


class Latency(Timing):
    """Milliseconds of one forward at (batch_size, sequence_length) of the target, no padding.

    Of a language model that is a prompt: its cache is filled, and the logits of its last token are
    computed (prefill).
    """

    name = "latency_ms"

    def call(self, bench: Bench, model: Any) -> Callable[[], Any]:
        batch = bench.workload.timing_batch(bench.target)
        return lambda: model(**batch)


register(Latency())
