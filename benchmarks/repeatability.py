"""Repeatability of latencies in a second run: the protocol, and a plain mean of 20 forwards.

Random candidates of a built-in study's model are pruned, served and timed in two fresh processes:
on a quiet machine, and with an intermittent neighbour process on one core, for which a timing waits
as in a study. Reported for both: Kendall's tau between the runs' rankings and the median absolute
difference of the ratio to dense; for the protocol also how often the 95% interval of one run
contains the other's value, over all and over stable timings.

    python benchmarks/repeatability.py [--study reviews] [--candidates 30] [--seconds 3]
                                       [--runtimes torch openvino openvino:int8] [--patience 30]
                                       [--raw timings.json]
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau
from timed_space import TimedSpace, build_all, in_a_fresh_process, neighbour, options

from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.common.target import cpu_name
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.latency import Latency
from paretoformer.evaluators.timing.protocol import TimingProtocol
from paretoformer.evaluators.timing.quiet import Quiet

PLAIN_RUNS = 20


@dataclass
class Session:
    """Timings in this process."""

    space: TimedSpace
    seconds: float
    patience: float

    def measured(self, model: Any, runnable: Any, dense: Measurement | None) -> Measurement:
        here = self.space.subject
        bench = Bench(
            runnable=runnable,
            model=model,
            dense=here.model,
            reference=None if dense is None else {"latency_ms": dense},
            task=here.task,
            split=here.workload.splits["search"],
            workload=here.workload,
            target=here.target,
            protocol=TimingProtocol(seconds=self.seconds),
            quiet=Quiet(self.patience),
        )
        return Latency().measure(bench)

    def plain(self, runnable: Any) -> float:
        batch = self.space.subject.workload.timing_batch(self.space.subject.target)
        with torch.inference_mode():
            runnable(**batch)
            start = time.perf_counter()
            for _ in range(PLAIN_RUNS):
                runnable(**batch)
            return (time.perf_counter() - start) / PLAIN_RUNS * 1e3


def once(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time every candidate in this process, in random order."""
    space = TimedSpace(arguments.study, arguments.runtimes, arguments.built)
    session = Session(space, arguments.seconds, arguments.patience)
    dense_model = space.subject.model
    built = [compressed for _, compressed in space.drawn(arguments.candidates)]
    dense = session.measured(dense_model, dense_model, None)
    plain_dense = session.plain(dense_model)
    rows: dict[int, Any] = {}
    for index in np.random.default_rng(time.time_ns()).permutation(len(built)).tolist():
        start = time.perf_counter()
        found = session.measured(built[index].model, built[index].runnable, dense)
        rows[index] = {
            "ratio": found.value / dense.value,
            "low": found.low / dense.value,
            "high": found.high / dense.value,
            "stable": found.stable,
            "disturbed": found.disturbed,
            "foreign": found.foreign_cores,
            "left_out": found.conditions["left_out"],
            "seconds": time.perf_counter() - start,
            "plain": session.plain(built[index].runnable) / plain_dense,
        }
    return {"dense_ms": dense.value, "rows": [rows[index] for index in sorted(rows)]}


def report(label: str, runs: list[dict[str, Any]]) -> None:
    first, second = (run["rows"] for run in runs)
    every = (*first, *second)
    print(f"{label}: dense {runs[0]['dense_ms']:.2f} and {runs[1]['dense_ms']:.2f} ms")
    for key, name in (("ratio", "protocol"), ("plain", f"mean of {PLAIN_RUNS}")):
        a, b = (np.array([row[key] for row in rows]) for rows in (first, second))
        tau, difference = kendalltau(a, b).statistic, np.median(np.abs(a - b) / b)
        print(f"  {name:12} Kendall's tau {tau:.3f}, median difference {difference:.2%}")
    sure = [pair for pair in zip(first, second, strict=True) if all(r["stable"] for r in pair)]
    held = coverage(list(zip(first, second, strict=True))), coverage(sure)
    width = np.median([(row["high"] - row["low"]) / row["ratio"] for row in every])
    stable, disturbed = (np.mean([row[key] for row in every]) for key in ("stable", "disturbed"))
    foreign, left_out, spent = (
        np.median([row[key] for row in every]) for key in ("foreign", "left_out", "seconds")
    )
    print(f"  interval     {width:.1%} wide, holds {held[0]:.0%}; of stable pairs {held[1]:.0%}")
    print(
        f"  {stable:.0%} stable, {disturbed:.0%} disturbed; medians: {foreign:.2f} foreign cores,"
    )
    print(f"  {left_out:.0%} of the rounds left out, {spent:.1f} s a timing", flush=True)


def coverage(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> float:
    """How often the interval of one timing contains the other's value, both ways."""
    both = [*pairs, *((b, a) for a, b in pairs)]
    return float(np.mean([a["low"] <= b["ratio"] <= a["high"] for a, b in both])) if both else 0.0


def main() -> None:
    parser = options(__doc__ or "", candidates=30)
    parser.add_argument("--patience", type=float, default=30.0)
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(once(arguments)))
        return
    print(f"{arguments.study}, {arguments.candidates} candidates, {cpu_name()}", flush=True)
    build_all(arguments)
    found = {}
    for label, there in (("quiet", False), ("with a neighbour", True)):
        with neighbour(there):
            runs = [in_a_fresh_process(__file__, arguments, "patience") for _ in range(2)]
        report(label, runs)
        found[label] = runs
        if arguments.raw is not None:
            arguments.raw.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
