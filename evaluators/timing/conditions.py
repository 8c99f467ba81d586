"""Conditions: what else the machine did while it was measured, and how it was set."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import Any

import psutil
import torch


class Watch:
    """The conditions over a `with` block.

    `foreign_cores`: cores that other processes kept busy, on average. `stolen_cores`: cores that
    the hypervisor took. On CUDA also `clock_mhz` and `temperature_c` at the end, and
    `foreign_gpu_processes`, where the driver's library tells.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
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
        if self._device.type == "cuda":
            self.conditions |= _gpu(self._device)


def _cpu_seconds() -> tuple[float, float, float]:
    """Seconds since boot: of all processors together busy, of this process, stolen."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    stolen = getattr(times, "steal", 0.0)
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # counted in user
    mine = psutil.Process().cpu_times()
    return sum(times) - idle - stolen - guests, mine.user + mine.system, stolen


def _gpu(device: torch.device) -> dict[str, float]:
    """Needs the package nvidia-ml-py; what it does not tell is left out."""
    found: dict[str, float] = {}
    with suppress(Exception):
        found["clock_mhz"] = float(torch.cuda.clock_rate(device))
    with suppress(Exception):
        found["temperature_c"] = float(torch.cuda.temperature(device))
    with suppress(Exception):
        lines = torch.cuda.list_gpu_processes(device).splitlines()
        found["foreign_gpu_processes"] = float(sum("process" in line for line in lines) - 1)
    return found


def threads_in_use() -> dict[str, int]:
    """Threads of torch's own pool, of OpenMP and of MKL, in this process."""
    names = {"at::get_num_threads": "torch", "omp_get_max_threads": "omp"}
    names |= {"mkl_get_max_threads": "mkl"}
    found = re.findall(r"(\S+)\(\) : (\d+)", torch.__config__.parallel_info())
    return {names[name]: int(count) for name, count in found if name in names}


def set_threads(count: int) -> None:
    """Use so many threads in this process.

    Raises:
        RuntimeError: one of the libraries uses another number all the same.
    """
    torch.set_num_threads(count)
    others = {name: used for name, used in threads_in_use().items() if used != count}
    if others:
        raise RuntimeError(
            f"the study asks for {count} threads, but here "
            f"{', '.join(f'{name} uses {used}' for name, used in others.items())}: "
            "unset OMP_NUM_THREADS and MKL_NUM_THREADS, or set them alike."
        )
