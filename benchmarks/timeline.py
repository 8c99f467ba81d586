"""From a finished run's files: jobs that overlapped timings, and the time cost of reliable timing.

python benchmarks/timeline.py RUN
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from paretoformer.search.records.parquet import read_front, read_table
from paretoformer.search.report.evidence import overlaps, shrinkage, timeline


def main() -> None:
    run = Path(sys.argv[1])
    trials = read_table(run / "trials.parquet")[0].to_pandas()
    front, facts = read_front(run)
    searched, confirmed = timeline(trials), timeline(front)
    everything = pd.concat((searched, confirmed), ignore_index=True)
    processes = searched[searched["phase"] == "shared"]["process"].nunique()
    print(f"{len(everything)} evaluations, {processes} accuracy workers in the search")
    print(f"overlaps with a timing on its host: {overlaps(everything)}")
    wall = everything["ended"].max() - everything["started"].min()
    print(f"wall time from the first evaluation to the last: {wall:.0f} s")
    timing = everything[everything["phase"] == "timing"]
    timed = (timing["ended"] - timing["started"]).sum()
    print(f"  timing, in the search or confirmation: {timed / wall:.0%}")
    begun = confirmed["ended"].max() - confirmed["started"].min()
    print(f"  confirmation: {begun / wall:.0%}")
    stable = trials["latency_ms_stable"].dropna().astype(bool)
    print(f"unstable timings in the search: {(~stable).sum()} of {len(stable)}")
    print("optimism of the search, median over its points (costs: share of the confirmed value):")
    for name, amount in shrinkage(front, facts).items():
        print(f"  {name:12} {amount:+.4f}")


if __name__ == "__main__":
    main()
