"""Kill a distillation repeatedly: is progress lost, and does the command resume?

SIGKILL hits the search and its workers at random moments of a distillation; then the same command
runs again. At the end no trial may be missing or repeated.

    python benchmarks/kill_distillation.py [--kills 5] [--minutes 4] [--trials 10] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import numpy as np
import psutil
from safetensors import SafetensorError, safe_open

from paretoformer.evaluators.common.target import cpu_name
from paretoformer.search.records.parquet import read_front, read_table
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.recovery.checkpoint import CHECKPOINT, PROGRESS

AT_MOST = 45.0
"""Maximum seconds from the start of a distillation to its kill."""


def write_study(folder: Path, trials: int, minutes: float) -> Path:
    text = files("paretoformer.search").joinpath("builtin/reviews.toml").read_text("utf-8")
    text = text.replace("trials = 40", f"trials = {trials}")
    text = text.replace("distill_minutes = 4", f"distill_minutes = {minutes}")
    path = folder / "killed.toml"
    path.write_text(text + '[space]\nruntime = ["torch"]\n', encoding="utf-8")
    return path


def start(study: Path, run: Path) -> psutil.Popen:
    log = (study.parent / "log.txt").open("a")
    command = [sys.executable, "-m", "paretoformer.search.cli", "search", str(study)]
    return psutil.Popen([*command, "--out", str(run)], stderr=log, stdout=log)


def workspaces(run: Path) -> Iterator[Path]:
    yield from sorted((run / "models").glob(".*.work"))


def kept(run: Path) -> dict[str, float]:
    """Candidate id -> seconds of training in its checkpoint."""
    found = {}
    for folder in workspaces(run):
        with suppress(OSError, SafetensorError, KeyError, TypeError):
            with safe_open(str(folder / CHECKPOINT), "pt") as file:
                facts = json.loads(file.metadata()["facts"])
            found[folder.name] = float(facts["seconds"])
    return found


def is_distilling(run: Path) -> bool:
    return any((folder / PROGRESS).exists() for folder in workspaces(run))


def kill(process: psutil.Popen) -> None:
    every = [process, *process.children(recursive=True)]
    for victim in every:
        with suppress(psutil.NoSuchProcess):
            victim.kill()
    psutil.wait_procs(every, timeout=30)
    process.wait()


def killed_once(study: Path, run: Path, rng: np.random.Generator) -> bool:
    """Kill once; return whether there was still something to kill."""
    process = start(study, run)
    begun = time.monotonic()
    while not is_distilling(run) and process.poll() is None:
        time.sleep(0.2)
    # A resumed distillation has its files before it runs: leave time to load.
    until = time.monotonic() + 10 + float(rng.uniform(0, AT_MOST))
    while time.monotonic() < until and process.poll() is None:
        time.sleep(0.1)
    if process.poll() is not None:
        return False
    kill(process)
    ages = [time.time() - (f / CHECKPOINT).stat().st_mtime for f in workspaces(run)
            if (f / CHECKPOINT).exists()]  # fmt: skip
    seconds = ", ".join(f"{trained:.0f}" for trained in kept(run).values()) or "none"
    oldest = f"{max(ages):.0f} s" if ages else "no checkpoint yet"
    print(f"killed after {time.monotonic() - begun:4.0f} s | kept: {seconds} s | lost: {oldest}",
          flush=True)  # fmt: skip
    return True


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args(argv)
    folder = arguments.out or Path(tempfile.mkdtemp(prefix="killed-"))
    folder.mkdir(parents=True, exist_ok=True)
    study, run = write_study(folder, arguments.trials, arguments.minutes), folder / "run"
    rng = np.random.default_rng(0)
    print(f"{cpu_name()}; {folder}", flush=True)
    done = sum(killed_once(study, run, rng) for _ in range(arguments.kills))
    status = start(study, run).wait()
    table, _ = read_table(run / "trials.parquet")
    candidates = [Candidate.from_json(text) for text in table.column("candidate").to_pylist()]
    distilled = [candidate for candidate in candidates if candidate.seconds]
    outcomes = table.column("outcome").to_pylist()
    print(
        f"{done} kills; exit status {status} in the end; {len(candidates)} rows, "
        f"{len(set(candidates))} different, {len(distilled)} of them distilled; "
        f"not ok: {sum(outcome != 'ok' for outcome in outcomes)}; left over: "
        f"{len(list(workspaces(run)))} workspaces; front of {len(read_front(run)[0])} points"
    )


if __name__ == "__main__":
    main()
