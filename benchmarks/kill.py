"""Kill a study at random moments, resume it each time, and count lost or repeated trials.

A small real model, Ray and SQLite. SIGKILL hits the command alone, as from an out-of-memory killer.

    python benchmarks/kill.py [kills] [seed]
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parent.parent))

from paretoformer.search.loop import stored_records
from paretoformer.search.records.dominance import clearly_dominated
from paretoformer.search.records.facts import RunFacts
from paretoformer.search.records.parquet import read_front, read_table
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.study.optuna_study import open_storage
from tests.tiny import write_study

TRIALS = 40


def stored(folder: RunFolder) -> dict[str, int]:
    """Candidate id -> trial, for trials that are finished in the storage."""
    import optuna

    if not folder.storage.exists():
        return {}
    try:
        study = optuna.load_study(study_name="tiny", storage=open_storage(folder.storage_url("")))
    except KeyError:  # killed before the study existed
        return {}
    return {record.candidate.id: record.trial for record in stored_records(study)}


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    rng = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    with tempfile.TemporaryDirectory() as name:
        study = write_study(Path(name), trials=TRIALS)
        folder = RunFolder(Path(name) / "run")
        command = [sys.executable, "-m", "paretoformer.search.cli", "search", str(study)]
        command += ["--out", str(folder.path)]
        lost = 0
        known: dict[str, int] = {}
        print(f"{'kill':>4} {'after s':>8} {'finished':>9} {'lost':>5}")
        for kill in range(1, kills + 1):
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            seconds = rng.uniform(6, 32)
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
            process.wait()
            now = stored(folder)
            gone = sum(now.get(key) != trial for key, trial in known.items())
            lost += gone
            known = now
            if folder.trials.exists():
                read_table(folder.trials)  # raises if damaged
            print(f"{kill:4d} {seconds:8.1f} {len(now):9d} {gone:5d}", flush=True)
        subprocess.run(command, check=True, capture_output=True)
        trials = read_table(folder.trials)[0].to_pandas()
        front, facts = read_front(folder.path)
        lost += len(set(known) - set(trials["candidate_id"]))
        doubled = len(trials) - trials["candidate_id"].nunique()
        print(f"trials {len(trials)} of {TRIALS}, lost {lost}, doubled {doubled}")
        print(
            f"front equal to the one recomputed from trials.parquet: {same(trials, front, facts)}"
        )


def same(trials: pd.DataFrame, front: pd.DataFrame, facts: RunFacts) -> bool:
    """Whether the published candidates are the dense model and those not clearly dominated."""
    objectives = list(facts.objectives)
    done = trials[trials["state"] == "complete"]
    directions = [facts.metrics[name].direction for name in objectives]
    values, lows, highs = (
        done[[f"{name}{end}" for name in objectives]].to_numpy() for end in ("", "_low", "_high")
    )
    keep = ~clearly_dominated(values, lows, highs, directions)
    return set(front["candidate_id"]) == set(done["candidate_id"][keep]) | {
        trials["candidate_id"].iloc[0]
    }


if __name__ == "__main__":
    main()
