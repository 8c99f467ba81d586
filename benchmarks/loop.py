"""How many trials a second the whole loop does when measuring takes no time.

Ask, Ray (two jobs a trial), tell, SQLite, Parquet: the default sampler and storage, the space of
the built-in study (6 layers x 12 heads, ranked, with windows).

    python benchmarks/loop.py [trials]
"""

from __future__ import annotations

import sys
import tempfile
import time

import numpy as np
import torch  # noqa: F401  # before the clock starts

from paretoformer.evaluators.accuracy import Accuracy
from paretoformer.evaluators.formula import FormulaEvaluator
from paretoformer.evaluators.latency import Latency
from paretoformer.evaluators.target import cpu_name, physical_cores
from paretoformer.search.loop import Search, stored_records
from paretoformer.search.pipeline import Pipeline
from paretoformer.search.ray_dispatch import RayDispatcher, places, ray_session
from paretoformer.search.store import RunFolder, TrialsFile
from paretoformer.search.study import open_study
from paretoformer.spaces.space import Ranked, Space, menu


def main() -> None:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    scores = np.random.default_rng(0).random((6, 12))
    space = Space(Ranked(scores), 6, 12, menu(None, 64), scores)
    objectives = [Accuracy(), Latency()]
    names = [metric.name for metric in objectives]
    with tempfile.TemporaryDirectory() as name, ray_session(None, physical_cores()):
        folder = RunFolder(name)
        study = open_study("loop", folder.storage_url(""), objectives, "nsga2", 0)
        file = TrialsFile(folder.trials, names, ["latency_ms"], {})
        with RayDispatcher(FormulaEvaluator(), where=places(), threads=1, seconds=60) as dispatcher:
            start = time.perf_counter()
            marks: list[float] = []

            def on_record(records: list[object]) -> None:
                marks.append(time.perf_counter() - start)
                file.update(records)  # type: ignore[arg-type]

            search = Search(study, space, Pipeline(dispatcher, "search"), names, 0, on_record)
            records = search.run(trials)
            file.update(records, now=True)
            total = time.perf_counter() - start
        asked = len(study.get_trials(deepcopy=False))
        assert len(stored_records(study)) == trials
    print(f"{cpu_name()}, {physical_cores()} cores")
    print(f"{trials} trials ({asked} asked) in {total:.1f} s: {trials / total:.1f} trials a second")
    step = max(1, trials // 5)
    for end in range(step, trials + 1, step):
        begin = marks[end - step - 1] if end > step else 0.0
        rate = step / (marks[end - 1] - begin)
        print(f"  trials {end - step:4d} to {end:4d}: {rate:6.1f} a second")


if __name__ == "__main__":
    main()
