"""A study on a loaded machine, compared with a quiet confirmation.

One search of `reviews`, without distillation, is confirmed in three copies of its folder: on a
quiet machine; with one core busy for the first minutes; with one core busy all the time and a short
waiting limit. Reported: total time, waiting, number of disturbed points, and the difference of the
other points' speed-ups and latencies from the first confirmation.

    python benchmarks/loaded.py [--trials 12] [--busy 240] [--patience 1] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import sqlalchemy

from paretoformer.evaluators.common.target import cpu_name
from paretoformer.search.publish.confirm import CONFIRMED
from paretoformer.search.records.parquet import read_front
from paretoformer.search.records.run_folder import RunFolder

SPIN = "while True: pass"
CONFIRMING = "Confirming the front"
SAID = re.compile(r"wait(ing|ed) |beside other work|^Fastest", re.IGNORECASE)


@dataclass(frozen=True)
class Confirmed:
    """One confirmation. front: all rows. seconds: the whole command. said: remarks on waiting."""

    front: pd.DataFrame
    seconds: float
    said: list[str]


def write_study(folder: Path, trials: int, patience: float) -> Path:
    text = files("paretoformer.search").joinpath("builtin/reviews.toml").read_text("utf-8")
    text = text.replace("trials = 40", f"trials = {trials}")
    text = text.replace("distill_minutes = 4", "distill_minutes = 0")
    text = re.sub(r"\[timing\].*", f"[timing]\npatience_minutes = {patience:g}", text)
    path = folder / f"patience{patience:g}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def unconfirmed(run: Path, copy: Path) -> Path:
    """A copy of a finished run whose front is not confirmed yet."""
    shutil.copytree(run, copy)
    folder = RunFolder(copy)
    folder.front.unlink()
    engine = sqlalchemy.create_engine(folder.storage_url(""))
    with engine.begin() as connection:
        statement = "DELETE FROM study_user_attributes WHERE key LIKE :key"
        connection.execute(sqlalchemy.text(statement), {"key": f"{CONFIRMED}%"})
    engine.dispose()
    return copy


@contextmanager
def busy_core() -> Iterator[None]:
    other = subprocess.Popen([sys.executable, "-c", SPIN])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def run_study(study: Path, run: Path, busy: float) -> Confirmed:
    """busy: seconds with one busy core, from the start of the confirmation."""
    command = [sys.executable, "-m", "paretoformer", "search", str(study), "--out", str(run)]
    begun, said = time.monotonic(), []
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    load: threading.Thread | None = None

    def keep_busy() -> None:
        with busy_core():
            until = time.monotonic() + busy
            while time.monotonic() < until and process.poll() is None:
                time.sleep(0.2)

    assert process.stderr is not None
    for line in process.stderr:
        at = time.monotonic() - begun
        if SAID.search(line):
            said.append(f"{at:4.0f} s  {line.rstrip()}")
        if busy and load is None and line.startswith(CONFIRMING):
            load = threading.Thread(target=keep_busy)
            load.start()
    if status := process.wait():
        raise SystemExit(f"the study ended with {status}")
    if load is not None:
        load.join()
    return Confirmed(read_front(run)[0], time.monotonic() - begun, said)


def report(label: str, quiet: Confirmed, found: Confirmed) -> None:
    both = quiet.front.merge(found.front, on="candidate_id", suffixes=("", "_then"))
    marked = both["latency_ms_disturbed_then"].fillna(False).astype(bool)
    print(f"\n{label}: {found.seconds / 60:.1f} minutes, {len(both)} points, {marked.sum()} marked")
    for line in found.said:
        print(f"  {line}")
    for what, rows in (("not marked", both[~marked]), ("marked", both[marked])):
        for name in ("latency_ms", "speedup") if len(rows) else ():
            off = np.abs(rows[f"{name}_then"] / rows[name] - 1)
            print(
                f"  {what}, {name}: {off.median():.1%} off in the median, {off.max():.1%} at most; "
                f"{(off <= 0.03).sum()} of {len(rows)} within 3%"
            )
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--busy", type=float, default=240)
    parser.add_argument("--patience", type=float, default=1)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    folder = arguments.out or Path(tempfile.mkdtemp(prefix="loaded-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{cpu_name()}; {folder}", flush=True)
    study, short = (
        write_study(folder, arguments.trials, minutes) for minutes in (10, arguments.patience)
    )
    run_study(study, folder / "first", 0)
    quiet = run_study(study, unconfirmed(folder / "first", folder / "quiet"), 0)
    report("left alone", quiet, quiet)
    again = run_study(study, unconfirmed(folder / "first", folder / "again"), 0)
    report("left alone once more", quiet, again)
    busy = unconfirmed(folder / "first", folder / "busy")
    report(f"busy for {arguments.busy:.0f} s", quiet, run_study(study, busy, arguments.busy))
    ever = unconfirmed(folder / "first", folder / "ever")
    report("busy for ever", quiet, run_study(short, ever, 1e6))


if __name__ == "__main__":
    main()
