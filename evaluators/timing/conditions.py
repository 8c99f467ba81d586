"""Conditions: what else the machine did while it was measured."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

import psutil


class Watch:
    """The conditions over a `with` block.

    `foreign_cores`: cores that other processes kept busy, on average. Those of the study count too:
    they should do nothing meanwhile, and disturb alike. `stolen_cores`: cores that the hypervisor
    took. On CUDA also `clock_mhz` and `temperature_c` at the end, and `foreign_gpu_processes`,
    where the driver's library tells.
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
    """Seconds since boot: of the usable processors together busy, of this process, stolen."""
    mine = psutil.Process().cpu_times()
    stolen = sum(getattr(times, "steal", 0.0) for times in _processor_times())
    return busy_seconds(), mine.user + mine.system, stolen


def busy_seconds() -> float:
    """Seconds since boot that the processors which this process may use were busy, together."""
    return sum(map(_busy, _processor_times()))


def usable_processors() -> list[int]:
    """Numbers of the processors that this process may use: its affinity."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _processor_times() -> list[Any]:
    """What each usable processor did since boot."""
    every, usable = psutil.cpu_times(percpu=True), usable_processors()
    return [every[i] for i in usable] if max(usable) < len(every) else every


def _busy(times: Any) -> float:
    """Without what the hypervisor took; time of guests is counted in that of users."""
    away = ("idle", "iowait", "steal", "guest", "guest_nice")
    return float(sum(times) - sum(getattr(times, name, 0.0) for name in away))


def _gpu(device: str) -> dict[str, float]:
    """Needs the package nvidia-ml-py; what it does not tell is left out."""
    import torch  # which a worker that measures a formula does not load

    found: dict[str, float] = {}
    with suppress(Exception):
        found["clock_mhz"] = float(torch.cuda.clock_rate(device))
    with suppress(Exception):
        found["temperature_c"] = float(torch.cuda.temperature(device))
    with suppress(Exception):
        lines = torch.cuda.list_gpu_processes(device).splitlines()
        found["foreign_gpu_processes"] = float(sum("process" in line for line in lines) - 1)
    return found
