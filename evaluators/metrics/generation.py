"""Costs of text generation: milliseconds per token, and megabytes of the key-value cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.memory import MEGABYTE
from paretoformer.evaluators.metrics.metric import Cost
from paretoformer.evaluators.metrics.registry import register
from paretoformer.evaluators.metrics.timing import Timing
from paretoformer.spaces.models import key_values


class Decode(Timing):
    """Milliseconds to generate the next token of batch_size texts, with the tokens of a prompt in
    the key-value cache.

    The cache is restored after each call, so every call has the same context.
    """

    name = "decode_ms"
    of_generation = True

    def measure(self, bench: Bench) -> Measurement | None:
        return None if bench.runnable.generator is None else super().measure(bench)

    def calls(self, bench: Bench, model: Any) -> Sequence[Callable[[], Any]]:
        generator = model if isinstance(model, nn.Module) else model.generator
        cache, context = _filled(generator, bench)
        tokens = bench.workload.timing_batch(bench.target)["input_ids"][:, -1:]
        mask = torch.ones(len(tokens), context + 1, dtype=torch.long, device=tokens.device)

        before = key_values.layers_of(cache)
        argument = key_values.argument(generator)
        inputs = {"input_ids": tokens, "attention_mask": mask, argument: cache}

        def one() -> None:
            generator(**inputs, use_cache=True)
            key_values.restore(cache, before)

        return [one]


class CacheSize(Cost):
    """Megabytes (10^6 bytes) of the key-value cache of the target's batch of prompts."""

    name = "cache_mb"
    unit = "MB"
    of_generation = True

    def measure(self, bench: Bench) -> Measurement | None:
        if bench.runnable.generator is None:
            return None
        with torch.inference_mode():
            cache, _ = _filled(bench.runnable.generator, bench)
        tensors = (tensor for pair in key_values.pairs_of(cache) for tensor in pair)
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return Measurement.exact(size / MEGABYTE, self.unit)


def _filled(model: nn.Module, bench: Bench) -> tuple[DynamicCache, int]:
    """The cache after the target's batch of prompts, and their length."""
    batch = bench.workload.timing_batch(bench.target)
    cache = DynamicCache()
    model(**batch, **{key_values.argument(model): cache}, use_cache=True)
    return cache, batch["input_ids"].shape[1]


register(Decode())
register(CacheSize())
