"""Does a second run give the same latencies? The protocol beside a plain mean of 20 forwards.

Random candidates of a built-in study's space are timed in one fresh process, and again in another;
quiet, and with a busy process on one core. Reported for both ways of timing: Kendall's tau between
the runs' rankings, the median absolute difference of the ratio to dense, and for the protocol how
often the 95% interval of the first run holds the second one's value.

    python benchmarks/repeatability.py [--study reviews] [--candidates 20] [--seconds 1.5]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from ranked_space import space_of
from scipy.stats import kendalltau

from paretoformer.evaluators.metrics.latency import Latency
from paretoformer.evaluators.metrics.metric import Bench
from paretoformer.evaluators.target import cpu_name
from paretoformer.evaluators.timing.conditions import set_threads
from paretoformer.evaluators.timing.protocol import TimingProtocol
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import load_subject
from paretoformer.spaces.build import build
from paretoformer.spaces.families import shape_of
from paretoformer.spaces.runtimes.torch_runtime import TorchRunnable

PLAIN_RUNS = 20
SPIN = "while True: pass"


def once(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every candidate timed in this process, in an order of its own."""
    here = load_subject(load_spec(arguments.study))
    set_threads(here.target.threads)
    layers, heads = shape_of(here.model.config)
    space = space_of(layers, heads, here.target.sequence_length)
    rng = np.random.default_rng(1)
    candidates = [space.random(rng) for _ in range(arguments.candidates)]
    batch = here.workload.timing_batch(here.target)

    def plain(model: torch.nn.Module) -> float:
        with torch.inference_mode():
            model(**batch)
            start = time.perf_counter()
            for _ in range(PLAIN_RUNS):
                model(**batch)
            return (time.perf_counter() - start) / PLAIN_RUNS * 1e3

    def timed(model: torch.nn.Module, dense: Any) -> Any:
        return Latency().measure(
            Bench(
                runnable=TorchRunnable(model),
                model=model,
                dense=here.model,
                reference=dense,
                task=here.task,
                split=here.workload.splits["search"],
                workload=here.workload,
                target=here.target,
                protocol=TimingProtocol(seconds=arguments.seconds),
            )
        )

    dense = timed(here.model, None)
    plain_dense = plain(here.model)
    rows: dict[int, Any] = {}
    for index in np.random.default_rng(int(time.time())).permutation(len(candidates)).tolist():
        model = build(candidates[index], here.model).model
        measured = timed(model, {"latency_ms": dense})
        rows[index] = {
            "ratio": measured.value / dense.value,
            "low": measured.low / dense.value,
            "high": measured.high / dense.value,
            "stable": measured.stable,
            "foreign": measured.conditions["foreign_cores"],
            "off_pace": measured.conditions["off_pace"],
            "rounds": len(measured.samples),
            "plain": plain(model) / plain_dense,
        }
    return {"dense_ms": dense.value, "rows": [rows[index] for index in sorted(rows)]}


@contextmanager
def load(busy: bool) -> Any:
    """A process that keeps one core busy, for the length of the block."""
    other = subprocess.Popen([sys.executable, "-c", SPIN]) if busy else None
    try:
        yield
    finally:
        if other:
            other.kill()
            other.wait()


def fresh(arguments: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", __file__, *arguments, "--once"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def report(label: str, runs: list[dict[str, Any]]) -> None:
    first, second = (run["rows"] for run in runs)

    def compare(key: str) -> tuple[float, float]:
        a, b = (np.array([row[key] for row in rows]) for rows in (first, second))
        return float(kendalltau(a, b).statistic), float(np.median(np.abs(a - b) / b))

    print(f"{label}: dense {runs[0]['dense_ms']:.2f} and {runs[1]['dense_ms']:.2f} ms")
    for key, name in (("ratio", "protocol"), ("plain", f"mean of {PLAIN_RUNS}")):
        tau, difference = compare(key)
        print(f"  {name:12} Kendall's tau {tau:.3f}, median difference {difference:.2%}", end="")
        if key == "ratio":
            pairs = list(zip(first, second, strict=True))
            held = np.mean([a["low"] <= b["ratio"] <= a["high"] for a, b in pairs])
            width = np.median([(a["high"] - a["low"]) / a["ratio"] for a in first])
            unstable = sum(not row["stable"] for row in (*first, *second))
            loaded, off = (
                np.median([row[key] for row in (*first, *second)])
                for key in ("foreign", "off_pace")
            )
            print(f", coverage {held:.0%} (interval {width:.1%} wide),")
            print(f"{'':15}{unstable} of {2 * len(first)} unstable, medians: foreign load ", end="")
            print(f"{loaded:.2f} cores, {off:.0%} of the rounds off pace", end="")
        print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--study", default="reviews")
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(once(arguments)))
        return
    given = ["--study", arguments.study, "--candidates", str(arguments.candidates)]
    given += ["--seconds", str(arguments.seconds)]
    print(f"{arguments.study}, {arguments.candidates} candidates, {cpu_name()}")
    for label, busy in (("quiet", False), ("one core busy", True)):
        with load(busy):
            report(label, [fresh(given) for _ in range(2)])


if __name__ == "__main__":
    main()
