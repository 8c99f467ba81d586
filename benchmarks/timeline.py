"""What a finished run's own files say: who ran beside a timing, and what trust cost.

python benchmarks/timeline.py RUN
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from paretoformer.search.evidence import shrinkage
from paretoformer.search.store import read_front, read_table

HALVES = ("shared", "timing")


def spans(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each evaluation: half, host, process, started, ended."""
    parts = []
    for half in HALVES:
        names = {f"{half}_{key}": key for key in ("host", "process", "started", "ended")}
        part = rows[["trial", *names]].rename(columns=names).dropna()
        parts.append(part.assign(half=half))
    return pd.concat(parts, ignore_index=True)


def overlaps(timeline: pd.DataFrame) -> int:
    """Pairs of a timing and another evaluation on the same host at the same time."""
    found = 0
    for index, timing in timeline[timeline["half"] == "timing"].iterrows():
        other = timeline.drop(index)
        other = other[other["host"] == timing["host"]]
        beside = (other["started"] < timing["ended"]) & (timing["started"] < other["ended"])
        found += int(beside.sum())
    return found


def main() -> None:
    run = Path(sys.argv[1])
    trials = read_table(run / "trials.parquet")[0].to_pandas()
    front, facts = read_front(run)
    searched, confirmed = spans(trials), spans(front)
    everything = pd.concat((searched, confirmed), ignore_index=True)
    processes = searched[searched["half"] == "shared"]["process"].nunique()
    print(f"{len(everything)} evaluations, {processes} accuracy workers in the search")
    print(f"overlaps with a timing on its host: {overlaps(everything)}")
    wall = everything["ended"].max() - everything["started"].min()
    print(f"wall time from the first evaluation to the last: {wall:.0f} s")
    timing = everything[everything["half"] == "timing"]
    print(
        f"  timing, in the search or confirmation: {(timing.ended - timing.started).sum() / wall:.0%}"
    )
    begun = confirmed["ended"].max() - confirmed["started"].min()
    print(f"  confirmation: {begun / wall:.0%}")
    stable = trials["latency_ms_stable"].dropna().astype(bool)
    print(f"unstable timings in the search: {(~stable).sum()} of {len(stable)}")
    print("optimism of the search, median over its points (costs: share of the confirmed value):")
    for name, amount in shrinkage(front, facts).items():
        print(f"  {name:12} {amount:+.4f}")


if __name__ == "__main__":
    main()
