"""One run of a study, from its file to its published front."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from paretoformer.search.dispatch.signals import interruptible
from paretoformer.search.loop import stored_records
from paretoformer.search.opening import opened, requested
from paretoformer.search.preparing import prepare
from paretoformer.search.publishing import confirm, publish
from paretoformer.search.records.disk import room_on
from paretoformer.search.report.display import Display
from paretoformer.search.report.tracking import Tracker
from paretoformer.search.searching import has_work, searching, write_trials
from paretoformer.search.session import Session
from paretoformer.search.study.spec import DEFAULT_STUDY


def search(
    study: str | Path = DEFAULT_STUDY,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    trials: int | None = None,
    seed: int | None = None,
    require: Sequence[str] = (),
    minutes: float | None = None,
    address: str | None = None,
    mlflow: str | None = None,
    quiet: bool = False,
) -> Path:
    """Run a study, or resume it where an interrupted run stopped.

    study: a .toml file, a built-in name or, with `data`, a model: a folder or a Hub id. The task
    and the columns are guessed then, and the study is in `study.toml` of the run folder.
    data: the model's data, a file or a Hub id. out: the run folder; default `runs/<name>`.
    trials, seed, require, minutes: override the file; `minutes` replaces its trials, and `trials`
    its minutes.
    address: an existing Ray cluster; default: a local one.
    mlflow: an MLflow tracking URI to log the front to.

    Returns the run folder, with `trials.parquet`, `front.parquet` and `report.html`.

    Raises:
        UserError: something about the study, its data, this machine or the folder is wrong.
        StudyFailed: the uncompressed model itself cannot be measured.
        Interrupted: SIGINT or SIGTERM; finished work is kept.
    """
    with interruptible(), Display(quiet=quiet) as display:
        tracker = None if mlflow is None else Tracker(mlflow)  # checked before any measurement
        spec, folder = requested(
            study,
            data,
            out,
            display.note,
            trials=trials,
            seed=seed,
            require=require,
            minutes=minutes,
        )
        with room_on(folder.path), opened(spec, folder, address, display) as run:
            run.budget.took("start", time.monotonic() - run.budget.begun)
            with run.budget.phase("prepare"):
                session = prepare(run)
            _execute(session)
        if tracker is not None:
            tracker.log(folder)
    return folder.path


def _execute(session: Session) -> None:
    """Explore, distil, confirm, publish; skips the work that an earlier run finished."""
    records = stored_records(session.study)
    if has_work(session, records):
        with searching(session, records) as phase:
            with session.budget.phase("search"):
                phase.explore()
            with session.budget.phase("distil"):
                phase.distil()
            with session.budget.phase("search"):
                phase.explore()  # in the minutes that are left
        records = phase.loop.records
    write_trials(session, records)
    with session.budget.phase("confirm"):
        confirmed = confirm(session, records)
    publish(session, records, confirmed)
    session.display.note(f"Time: {session.budget.account}.")
