"""Latency: the mean time of one forward, timed in alternation with the dense model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.registry import register
from paretoformer.evaluators.metrics.timing import Timing


class Latency(Timing):
    """Milliseconds of one forward of `batch_size` texts, with the target's `sequence_length`.

    If that is `data`, the mean over texts that are as long as those of the search split, one batch
    after the other, in random order: a change of length costs time in some runtimes. The times of
    single lengths are kept as `ms_at_<tokens>`. If it is a number, there is no padding.

    For a language model, the prefill of a prompt: it fills the cache and computes the logits of the
    last token.
    """

    name = "latency_ms"

    def calls(self, bench: Bench, model: Any) -> Sequence[Callable[[], Any]]:
        return [partial(model, **batch) for batch in bench.workload.timing_batches(bench.target)]

    def tokens(self, bench: Bench) -> Sequence[int]:
        if not bench.target.follows_data:
            return ()
        batches = bench.workload.timing_batches(bench.target)
        return [batch["input_ids"].shape[1] for batch in batches]


register(Latency())
