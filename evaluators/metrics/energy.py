"""Energy of one forward, from hardware counters, read with zeus."""

from __future__ import annotations

import importlib
import time
from functools import cache, partial
from typing import Any

import torch

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.metric import Cost
from paretoformer.evaluators.metrics.registry import register
from paretoformer.evaluators.timing.clocks import synchronizer
from paretoformer.evaluators.timing.conditions import Watch
from paretoformer.evaluators.timing.quiet import measure_in_quiet

SECONDS = 10.0
"""Duration of one reading: counters update about ten times a second, and noise must average out."""
READINGS = 2
WINDOW = "paretoformer"


class Energy(Cost):
    """Millijoules of one forward, without the idle power of the machine.

    From hardware counters: RAPL (processor packages and memory) on a CPU target, NVML on CUDA;
    never from a power model. Forwards run back to back for 10 s per reading; idle power is read
    once per process and subtracted. The interval is the range of the readings. The counters include
    other processes, so like a timing it waits for a quiet machine.
    """

    name = "energy_mj"
    unit = "mJ"
    exclusive = True

    def unavailable(self, target: Target) -> str:
        kind = torch.device(target.device).type
        try:
            if kind == "cuda":
                readable = importlib.import_module("zeus.device.gpu.nvidia").nvml_is_available()
            elif kind == "cpu":
                readable = importlib.import_module("zeus.device.cpu.rapl").rapl_is_available()
            else:
                return f"there are no energy counters for {target.device}"
        except ImportError:
            return (
                "reading energy counters needs zeus: pip install 'paretoformer[energy]', on a "
                "machine that has counters (RAPL or NVML)"
            )
        if not readable:
            counters = "NVML" if kind == "cuda" else "RAPL"
            return f"this machine has no energy counters that can be read ({counters})"
        return ""

    def measure(self, bench: Bench) -> Measurement:
        return measure_in_quiet(bench.quiet, partial(self._once, bench))

    def _once(self, bench: Bench) -> Measurement:
        target = bench.target
        batch = bench.workload.timing_batch(target)
        synchronize = synchronizer(target.device)
        idle_watts = _idle_watts(target)
        readings = []
        with torch.inference_mode(), Watch(target.device) as watch:
            for _ in range(READINGS):
                joules, seconds, runs = self._reading(bench.runnable, batch, target, synchronize)
                readings.append((joules - idle_watts * seconds) / runs * 1e3)
        return Measurement(
            value=sum(readings) / len(readings),
            low=min(readings),
            high=max(readings),
            unit=self.unit,
            samples=tuple(readings),
            conditions={**watch.conditions, "idle_watts": round(idle_watts, 3)},
        )

    def _reading(
        self, model: Any, batch: Any, target: Target, synchronize: Any
    ) -> tuple[float, float, int]:
        """(joules, seconds, forwards) of one reading."""
        runs = 0
        monitor = _monitor(target)
        monitor.begin_window(WINDOW)
        start = time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            model(**batch)
            synchronize()
            runs += 1
        energy = monitor.end_window(WINDOW)
        return _joules(energy), energy.time, runs


@cache
def _monitor(target: Target) -> Any:
    monitor = importlib.import_module("zeus.monitor").ZeusMonitor
    device = torch.device(target.device)
    if device.type == "cuda":
        return monitor(gpu_indices=[device.index or 0], cpu_indices=[])
    return monitor(gpu_indices=[])


@cache
def _idle_watts(target: Target) -> float:
    monitor = _monitor(target)
    monitor.begin_window(WINDOW)
    time.sleep(SECONDS)
    energy = monitor.end_window(WINDOW)
    return _joules(energy) / float(energy.time)


def _joules(energy: Any) -> float:
    """Sum of all counters in a zeus measurement."""
    parts = (energy.gpu_energy, energy.cpu_energy, energy.dram_energy)
    return float(sum(sum((part or {}).values()) for part in parts))


register(Energy())
