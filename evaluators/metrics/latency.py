"""Latency: the mean time of one forward, timed in alternation with the dense model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.registry import register
from paretoformer.evaluators.metrics.timing import Timing


class Latency(Timing):
    """Milliseconds of one forward at the target's (batch_size, sequence_length), without padding.

    For a language model, the prefill of a prompt: it fills the cache and computes the logits of the
    last token.
    """

    name = "latency_ms"

    def call(self, bench: Bench, model: Any) -> Callable[[], Any]:
        batch = bench.workload.timing_batch(bench.target)
        return lambda: model(**batch)


register(Latency())
