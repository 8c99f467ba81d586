"""A search whose workers are killed, hang, raise and run out of memory: what results remain?

Real Ray, SQLite and Parquet, with a formula instead of measurements. Each fault hits one random
job; one candidate kills every worker that runs it.

    python benchmarks/faults.py [trials] [seed]
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from ranked_space import space_of

from paretoformer.evaluators.evaluator import failure
from paretoformer.evaluators.formula import FormulaEvaluator
from paretoformer.evaluators.job import Job
from paretoformer.evaluators.metrics.accuracy import Accuracy
from paretoformer.evaluators.metrics.latency import Latency
from paretoformer.evaluators.outcome import Result
from paretoformer.search.dispatch.pipeline import Pipeline
from paretoformer.search.dispatch.placement import places
from paretoformer.search.dispatch.ray_dispatcher import RayDispatcher
from paretoformer.search.dispatch.ray_session import ray_session
from paretoformer.search.loop import Search
from paretoformer.search.proposers import Unseen, standard_proposers
from paretoformer.search.records.facts import RunFacts
from paretoformer.search.records.parquet import TrialsFile, read_table
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.study.optuna_study import open_study

FAULTS = ("killed", "hangs", "raises", "asks for too much memory", "kills every worker")
SECONDS = 5.0
"""Time limit of a job."""


@dataclass
class Faulty(FormulaEvaluator):
    """Triggers each fault once, in the first worker that reaches it."""

    folder: str = ""

    def run(self, job: Job) -> Result:
        cursed = Path(self.folder, FAULTS[4])
        if cursed.exists() and cursed.read_text() == job.candidate.id:
            os._exit(1)
        if job.candidate.heads.total < 72 and random.random() < 0.15:  # never the dense model
            fault = self._claim(job.candidate.id)
            try:
                self._strike(fault)
            except Exception as error:
                return failure(error)
        return super().run(job)

    def _claim(self, candidate: str) -> str:
        for fault in FAULTS:
            try:
                with Path(self.folder, fault).open("x") as file:
                    file.write(candidate)
                return fault
            except FileExistsError:
                continue
        return ""

    def _strike(self, fault: str) -> None:
        if fault in ("killed", "kills every worker"):
            os._exit(1)
        if fault == "hangs":
            time.sleep(3600)
        if fault == "raises":
            raise ValueError("as the benchmark wants it")
        if fault == "asks for too much memory":
            torch.empty(10**15)


def main() -> None:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    random.seed(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    space = space_of(layers=6, heads=12, length=64)
    objectives = [Accuracy(), Latency()]
    names = [metric.name for metric in objectives]
    facts = RunFacts(study={}, machine={}, objectives=tuple(names), metrics={})
    with tempfile.TemporaryDirectory() as name, ray_session(None, 2):
        folder, claims = RunFolder(name), Path(name, "claims")
        claims.mkdir()
        study = open_study("faults", folder.storage_url(""), objectives, "nsga2", 0)
        file = TrialsFile(folder.trials, names, ["latency_ms"], facts)
        evaluator = Faulty(folder=str(claims))
        with RayDispatcher(evaluator, where=places(), threads=1, seconds=SECONDS) as dispatcher:
            records = Search(
                study,
                space,
                standard_proposers(space, objectives),
                Unseen(space, 0),
                Pipeline(dispatcher, "search"),
                names,
            ).run(trials)
        file.update(records, now=True)
        rows = read_table(folder.trials)[0].to_pandas()
        struck = {path.name: path.read_text() for path in claims.iterdir()}
    print(f"{len(rows)} trials of {trials}; outcomes {rows['outcome'].value_counts().to_dict()}")
    for fault in FAULTS:
        if fault not in struck:
            print(f"  {fault:26} did not strike: run again with another seed")
            continue
        row = rows[rows["candidate_id"] == struck[fault]].iloc[0]
        print(f"  {fault:26} trial {row['trial']:3d}: {row['outcome']:14} {row['message'][:60]}")
    others = rows[~rows["candidate_id"].isin(struck.values())]
    print(f"all {len(others)} other trials finished: {(others['outcome'] == 'ok').all()}")


if __name__ == "__main__":
    main()
