"""Which feed-forward widths are efficient in this machine's runtimes: time against width.

A stack of feed-forward blocks, as in a study's model, is timed in shuffled rounds at many widths,
including multiples of 8, 16, 32 and 64. If time is linear in width, no grid is needed; if multiples
lie below the line, a grid pays off. Printed: deviation of each kind of width from a line fitted to
all, in per cent, with the standard error.

    python benchmarks/widths.py [--hidden 384] [--tokens 64] [--rounds 15]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from paretoformer.evaluators.common.target import cpu_name, physical_cores

DEPTH = 6
KINDS: dict[str, Callable[[int], bool]] = {
    "64": lambda width: width % 64 == 0,
    "32, not 64": lambda width: width % 64 == 32,
    "16, not 32": lambda width: width % 32 == 16,
    "8, not 16": lambda width: width % 16 == 8,
    "none of these": lambda width: width % 8 != 0,
}


def stack(hidden: int, width: int) -> nn.Module:
    blocks = [
        layer
        for _ in range(DEPTH)
        for layer in (nn.Linear(hidden, width), nn.GELU(), nn.Linear(width, hidden))
    ]
    return nn.Sequential(*blocks).eval()


def runners(hidden: int, tokens: int, threads: int) -> dict[str, Callable[[int], Any]]:
    """Runtime -> function from a width to a callable that runs once."""
    example = torch.randn(tokens, hidden)

    def in_torch(width: int) -> Any:
        model = stack(hidden, width)

        def run() -> None:
            with torch.inference_mode():
                model(example)

        return run

    found: dict[str, Callable[[int], Any]] = {"torch": in_torch}
    try:
        import openvino as ov
    except ImportError:
        return found

    def in_openvino(width: int) -> Any:
        model = ov.convert_model(stack(hidden, width), example_input=example)
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        request = ov.Core().compile_model(model, "CPU", settings).create_infer_request()
        feed = {0: example.numpy()}
        return lambda: request.infer(feed)

    found["openvino"] = in_openvino
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    threads = physical_cores()
    torch.set_num_threads(threads)
    bases = range(192, 1024, 128)
    widths = sorted({base + step for base in bases for step in (0, 5, 8, 16, 32, 45, 64, 72, 96)})
    print(f"{cpu_name()}, {threads} threads, {arguments.tokens} tokens of {arguments.hidden}")
    for name, make in runners(arguments.hidden, arguments.tokens, threads).items():
        run = {width: make(width) for width in widths}
        times: dict[int, list[float]] = {width: [] for width in widths}
        rng = np.random.default_rng(0)
        for _ in range(arguments.rounds):
            for width in rng.permutation(widths):
                run[width]()
                start = time.perf_counter()
                for _ in range(5):
                    run[width]()
                times[int(width)].append((time.perf_counter() - start) / 5)
        found = np.array([np.median(times[width]) for width in widths])
        line = np.polynomial.Polynomial.fit(widths, found, 1)(np.array(widths, dtype=float))
        above = 100 * (found / line - 1)
        print(
            f"{name}: width {widths[0]} {1e3 * found[0]:.2f} ms, {widths[-1]} "
            f"{1e3 * found[-1]:.2f} ms"
        )
        for kind, belongs in KINDS.items():
            own = above[[belongs(width) for width in widths]]
            print(
                f"  multiple of {kind:<14} {own.mean():+6.1f}% ± {own.std() / len(own) ** 0.5:.1f}"
                f"  ({len(own)} widths)"
            )


if __name__ == "__main__":
    main()
