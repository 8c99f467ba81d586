"""How many trials a second the whole loop does when measuring takes no time.

Ask, Ray (two jobs a trial), tell, SQLite, Parquet: the default sampler and storage, the space of
the built-in study (6 layers x 12 heads, ranked, with windows).

    python benchmarks/loop.py [trials]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence

import torch  # noqa: F401  # before the clock starts
from ranked_space import space_of

from paretoformer.evaluators.formula import FormulaEvaluator
from paretoformer.evaluators.metrics.accuracy import Accuracy
from paretoformer.evaluators.metrics.latency import Latency
from paretoformer.evaluators.target import cpu_name, physical_cores
from paretoformer.search.dispatch.pipeline import Pipeline
from paretoformer.search.dispatch.placement import places
from paretoformer.search.dispatch.ray_dispatcher import RayDispatcher
from paretoformer.search.dispatch.ray_session import ray_session
from paretoformer.search.loop import Search, stored_records
from paretoformer.search.proposers import Unseen, standard_proposers
from paretoformer.search.results.facts import RunFacts
from paretoformer.search.results.parquet import TrialsFile
from paretoformer.search.results.record import TrialRecord
from paretoformer.search.results.run_folder import RunFolder
from paretoformer.search.study.optuna_study import open_study


def main() -> None:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    space = space_of(layers=6, heads=12, length=64)
    objectives = [Accuracy(), Latency()]
    names = [metric.name for metric in objectives]
    facts = RunFacts(study={}, machine={}, objectives=tuple(names), metrics={})
    with tempfile.TemporaryDirectory() as name, ray_session(None, physical_cores()):
        folder = RunFolder(name)
        study = open_study("loop", folder.storage_url(""), objectives, "nsga2", 0)
        file = TrialsFile(folder.trials, names, ["latency_ms"], facts)
        with RayDispatcher(FormulaEvaluator(), where=places(), threads=1, seconds=60) as dispatcher:
            start = time.perf_counter()
            marks: list[float] = []

            def on_record(records: Sequence[TrialRecord]) -> None:
                marks.append(time.perf_counter() - start)
                file.update(records)

            records = Search(
                study,
                space,
                standard_proposers(space, objectives),
                Unseen(space, 0),
                Pipeline(dispatcher, "search"),
                names,
                on_record,
            ).run(trials)
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
