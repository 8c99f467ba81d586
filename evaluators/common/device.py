"""The name of a device, as a study file writes it; without torch, which takes odd ones for others.

`torch.device("cuda:999")` is device -25, and `cpu:3` the one CPU there is.
"""

from __future__ import annotations

import re

_FORM = re.compile(r"cpu|mps|cuda(?::(0|[1-9][0-9]*))?")


def cuda_index(name: str) -> int | None:
    """The number of a CUDA device; None of another device.

    Raises:
        ValueError: the name is none of a device.
    """
    found = _FORM.fullmatch(name)
    if found is None:
        raise ValueError(f"unknown device {name!r}: use cpu, cuda, cuda:0 or mps.")
    return int(found[1] or 0) if name.startswith("cuda") else None
