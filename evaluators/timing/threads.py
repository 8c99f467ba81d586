"""CPU threads of this process: torch's own pool, OpenMP and MKL."""

from __future__ import annotations

import re

import torch


def threads_in_use() -> dict[str, int]:
    """Threads per library in this process."""
    names = {"at::get_num_threads": "torch", "omp_get_max_threads": "omp"}
    names |= {"mkl_get_max_threads": "mkl"}
    counts = re.findall(r"(\S+)\(\) : (\d+)", torch.__config__.parallel_info())
    return {names[name]: int(count) for name, count in counts if name in names}


def set_threads(count: int) -> None:
    """Use `count` threads; RuntimeError if one of the libraries still uses another number."""
    torch.set_num_threads(count)
    others = {name: used for name, used in threads_in_use().items() if used != count}
    if others:
        raise RuntimeError(
            f"the study asks for {count} threads, but here "
            f"{', '.join(f'{name} uses {used}' for name, used in others.items())}: "
            "unset OMP_NUM_THREADS and MKL_NUM_THREADS, or set them alike."
        )
