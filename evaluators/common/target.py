"""The target: the machine, and how the model runs on it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import joblib
import psutil
import torch

from paretoformer.evaluators.common.device import cuda_index
from paretoformer.spaces.common.instructions import instructions

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

DATA: Final[Literal["data"]] = "data"
Length = int | Literal["data"]
"""`target.sequence_length` of a study: a number of tokens, or the lengths of the data."""


@dataclass(frozen=True)
class Target:
    """How the compressed model will run.

    device: `cpu`, `cuda`, `cuda:0` or `mps`. threads: CPU threads of one forward. sequence_length:
    tokens; longer texts are truncated. follows_data: texts are timed at their own lengths, not all
    at `sequence_length`.

    Raises:
        ValueError: a number is not positive, or the dtype is unknown.
    """

    device: str = "cpu"
    threads: int = 1
    batch_size: int = 1
    sequence_length: int = 512
    dtype: str = "float32"
    follows_data: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is one of {', '.join(DTYPES)}, but got {self.dtype!r}.")
        for name in ("threads", "batch_size", "sequence_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1, but got {getattr(self, name)}.")

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]


def check_device(name: str) -> None:
    """Raises ValueError unless this machine has the device."""
    index = cuda_index(name)
    if index is not None:
        count = torch.cuda.device_count()
        if index >= count:
            raise ValueError(f"device {name!r} is not here: this machine has {count} CUDA devices.")
    elif name == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device {name!r} is not available on this machine: use cpu.")


def accelerators(device: str) -> int:
    """Number of GPUs that a device name may refer to."""
    return torch.cuda.device_count() if device == "cuda" else int(device != "cpu")


def physical_cores() -> int:
    """Physical cores available to this process, by affinity and container quota."""
    usable = int(joblib.cpu_count(only_physical_cores=True))
    # Under an affinity or a quota joblib counts hyper-threads.
    return max(1, min(usable, psutil.cpu_count(logical=False) or usable))


def check_threads(count: int) -> None:
    """Raises ValueError if this process has fewer cores."""
    cores = physical_cores()
    if count > cores:
        raise ValueError(
            f"target.threads is {count}, but this process may use {cores} physical "
            f"{'core' if cores == 1 else 'cores'}: set it to {cores} or less."
        )


def cpu_name() -> str:
    """CPU name from the operating system."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def machine_facts(target: Target) -> dict[str, Any]:
    """Facts about the machine that affect measurements, and library versions."""
    device = torch.device(target.device)
    accelerator = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return {
        "hardware": {
            "cpu": cpu_name(),
            "instructions": instructions(),
            "cores": physical_cores(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9),
            "accelerator": accelerator,
            "architecture": platform.machine(),
        },
        "host": platform.node(),
        "system": platform.platform(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that affect measurements."""
    from importlib.metadata import version

    libraries = ("paretoformer", "torch", "transformers", "optuna", "ray", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in libraries}


def describe_machine(machine: Mapping[str, Any]) -> str:
    """`AMD EPYC with AVX-512 VNNI, 2 cores, 25 GB (host name)`."""
    hardware = machine["hardware"]
    accelerator = f", {hardware['accelerator']}" if hardware["accelerator"] else ""
    return (
        f"{describe_cpu(hardware)}, {hardware['cores']} cores, "
        f"{hardware['memory_gb']} GB{accelerator} (host {machine['host']})"
    )


def describe_cpu(hardware: Mapping[str, Any]) -> str:
    """`AMD EPYC with AVX-512 VNNI`."""
    known = hardware.get("instructions")  # older runs did not store them
    return f"{hardware['cpu']} with {known}" if known else str(hardware["cpu"])


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Fact of the hardware -> its values, where they differ. Facts that `there`, an older run, did
    not store are not compared."""
    return {key: (old, here.get(key)) for key, old in there.items() if here.get(key) != old}
