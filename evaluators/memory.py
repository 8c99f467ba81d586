"""Memory: weights plus the peak of what one forward allocates."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from paretoformer.evaluators.measurement import Measurement
from paretoformer.evaluators.metric import Direction, Metric, Subject

MEGABYTE = 1e6


class Memory(Metric):
    """Megabytes (10^6 bytes) of weights and peak activations of one forward of the target.

    From the allocator, not from the size of the process, so it repeats to the byte on a CPU. The
    inputs are not counted: they are there before the model runs.
    """

    name = "memory_mb"
    unit = "MB"
    direction: ClassVar[Direction] = "minimize"

    def measure(self, subject: Subject) -> Measurement:
        batch = subject.workload.timing_batch(subject.target)
        with torch.inference_mode():
            subject.model(**batch)  # what a first call allocates once is no activation
            peak = _peak_bytes(subject.model, batch, subject.target.device)
        return Measurement.exact((weight_bytes(subject.model) + peak) / MEGABYTE, self.unit)


def weight_bytes(model: nn.Module) -> int:
    """Bytes of parameters and buffers; a shared tensor counts once."""
    tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _peak_bytes(model: nn.Module, batch: dict[str, torch.Tensor], device: str) -> int:
    """The most bytes that one forward holds at once, beyond weights and inputs."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        model(**batch)
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        model(**batch)
    return peak_of(trace)


def peak_of(trace: profile) -> int:
    """The highest running sum of the allocations and frees that a profile saw, in bytes."""
    results: Any = cast(Any, trace.profiler).kineto_results
    events = [(e.start_ns(), e.nbytes()) for e in results.events() if e.name() == "[memory]"]
    total = peak = 0
    for _, size in sorted(events, key=lambda event: event[0]):
        total += size
        peak = max(peak, total)
    return peak
