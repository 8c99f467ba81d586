"""Checks a device name of a study file without torch, which accepts invalid ones.

`torch.device("cuda:999")` has index -25; `cpu:3` means the only CPU.
"""

from __future__ import annotations

import re

_FORM = re.compile(r"cpu|mps|cuda(?::(0|[1-9][0-9]*))?")


def cuda_index(name: str) -> int | None:
    """The index of a CUDA device; None for other devices; ValueError if it is not a device name."""
    match = _FORM.fullmatch(name)
    if match is None:
        raise ValueError(f"unknown device {name!r}: use cpu, cuda, cuda:0 or mps.")
    return int(match[1] or 0) if name.startswith("cuda") else None
