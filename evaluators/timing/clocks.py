"""Clocks: time of a call, including asynchronous work of the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch

Stopwatch = Callable[[Callable[[], object]], float]
"""Call -> milliseconds until the device has finished it."""


def stopwatch(device: str) -> Stopwatch:
    """CUDA events on a CUDA device, which exclude driver overhead; otherwise the CPU clock."""
    if torch.device(device).type == "cuda":
        return partial(_by_events, torch.device(device))
    return partial(_by_clock, synchronizer(device))


def _by_events(device: torch.device, call: Callable[[], object]) -> float:
    with torch.cuda.device(device):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))


def _by_clock(synchronize: Callable[[], None], call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    synchronize()
    return (time.perf_counter() - start) * 1e3


def synchronizer(device: str) -> Callable[[], None]:
    """A function that waits until the device is idle."""
    kind = torch.device(device).type
    if kind == "cuda":
        return partial(torch.cuda.synchronize, device)
    if kind == "mps":
        return torch.mps.synchronize
    return lambda: None
