"""Conditions: load on the machine during a measurement."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

import psutil


class Watch:
    """The conditions during a `with` block.

    `foreign_cores`: mean number of cores used by other processes. Other processes of the study
    count too: they should be idle, and would disturb as much. `stolen_cores`: cores taken by the
    hypervisor. On CUDA also `clock_mhz` and `temperature_c` at the end, and
    `foreign_gpu_processes`, if the driver reports them.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self.conditions: dict[str, float] = {}

    def __enter__(self) -> Watch:
        self._start = time.perf_counter()
        self._before = _cpu_seconds()
        return self

    def __exit__(self, *exception: Any) -> None:
        elapsed = max(time.perf_counter() - self._start, 1e-9)
        busy, own, stolen = (
            after - before for after, before in zip(_cpu_seconds(), self._before, strict=True)
        )
        self.conditions = {
            "foreign_cores": round(max(0.0, busy - own) / elapsed, 3),
            "stolen_cores": round(max(0.0, stolen) / elapsed, 3),
        }
        if self._device.startswith("cuda"):
            self.conditions |= _gpu(self._device)


def _cpu_seconds() -> tuple[float, float, float]:
    """Seconds since boot: usable processors busy (summed), this process, stolen."""
    mine = psutil.Process().cpu_times()
    stolen = sum(getattr(times, "steal", 0.0) for times in _processor_times())
    return busy_seconds(), mine.user + mine.system, stolen


def busy_seconds() -> float:
    """Busy seconds since boot, summed over the processors this process may use."""
    return sum(map(_busy, _processor_times()))


def usable_processors() -> list[int]:
    """Indices of the processors in this process's affinity."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _processor_times() -> list[Any]:
    every, usable = psutil.cpu_times(percpu=True), usable_processors()
    return [every[i] for i in usable] if max(usable) < len(every) else every


def _busy(times: Any) -> float:
    """Without stolen time; guest time is part of user time."""
    away = ("idle", "iowait", "steal", "guest", "guest_nice")
    return float(sum(times) - sum(getattr(times, name, 0.0) for name in away))


def _gpu(device: str) -> dict[str, float]:
    """Needs nvidia-ml-py; values that it cannot read are left out."""
    import torch  # slow; workers that evaluate a formula do not need it

    state: dict[str, float] = {}
    with suppress(Exception):
        state["clock_mhz"] = float(torch.cuda.clock_rate(device))
    with suppress(Exception):
        state["temperature_c"] = float(torch.cuda.temperature(device))
    with suppress(Exception):
        lines = torch.cuda.list_gpu_processes(device).splitlines()
        state["foreign_gpu_processes"] = float(sum("process" in line for line in lines) - 1)
    return state
