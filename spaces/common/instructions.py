"""The CPU's instruction sets, which decide how fast a runtime is in a precision."""

from __future__ import annotations

from typing import Any

import torch

DECISIVE = {
    "avx2": "AVX2",
    "avx512_f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "VNNI",
    "avx512_bf16": "BF16",
    "avx512_fp16": "FP16",
    "amx_int8": "AMX",
    "i8mm": "I8MM",
    "bf16": "BF16",
    "sve": "SVE",
    "sve2": "SVE2",
}
"""Name in torch -> name as it is shown."""


def capabilities() -> dict[str, Any]:
    """What the CPU can do, as torch names it; empty if this torch cannot report it."""
    ask = getattr(torch.cpu, "get_capabilities", None)
    return {} if ask is None else dict(ask())


def instructions() -> str:
    """`AVX-512 VNNI BF16`; CPUs of equal name may differ in it, above all virtual ones."""
    has = capabilities()
    implied = {"avx2"} if has.get("avx512_f") else set()
    return " ".join(DECISIVE[name] for name in DECISIVE if has.get(name) and name not in implied)
