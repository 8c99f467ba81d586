"""Opening a run: check everything, then create, lock and claim its folder and storage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from paretoformer.search.records.errors import RunError, StudyError
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.report.display import Display
from paretoformer.search.study.budget import Budget
from paretoformer.search.study.optuna_study import ResumableStudy, check_storage, open_study
from paretoformer.search.study.spec import Spec, check_varies, load_spec, read_spec
from paretoformer.search.study.subject import Subject, load_subject, try_dense
from paretoformer.search.study.template import guessed_study
from paretoformer.search.workers import Workers

RUN = "run"
"""User attribute of the study: the id of its run folder, as in `machine.json`."""
SUBJECT_DIGEST = "fingerprint"
"""User attribute of the study: a digest of model and data."""


@dataclass(frozen=True)
class Opening:
    """A run that may begin or continue, with its folder locked."""

    spec: Spec
    folder: RunFolder
    study: ResumableStudy
    subject: Subject
    budget: Budget
    workers: Workers
    display: Display


def requested(
    study: str | Path,
    data: str | Path | None,
    out: str | Path | None,
    say: Callable[[str], None],
    **overrides: Any,
) -> tuple[Spec, RunFolder]:
    """The study that a search is asked for, and its folder; default: `runs/<name>`.

    data: of `study`, which is a model then. say: gets what was guessed of both.
    overrides: as `load_spec`.

    Raises:
        UserError: there is no such study, or none can be made of the model and the data.
    """
    text = None
    if data is not None:
        study, text, guess = guessed_study(str(study), str(data))
        say(guess)
    spec = load_spec(study, text=text, **overrides)
    return spec, RunFolder(out if out is not None else Path("runs") / spec.name)


@contextmanager
def opened(
    spec: Spec, folder: RunFolder, address: str | None, display: Display
) -> Iterator[Opening]:
    """Check everything, then write. If Ray was started here, it ends with the context.

    Raises:
        UserError: something about the study, its data, this machine or the folder is wrong.
        StudyFailed: the uncompressed model itself cannot be measured.
    """
    begun = time.monotonic()
    check_varies(spec)
    spec = settled(spec, folder)
    if spec.target.resource and not address:
        raise StudyError(
            f"target.resource {spec.target.resource!r} is a node of a Ray cluster: "
            "give the cluster's --address."
        )
    subject = load_subject(spec, display.progress)
    with ExitStack() as stack:
        workers = Workers(spec, subject.target, folder, address, display, stack)
        machine = workers.machine()
        if spec.search.storage:
            new = not folder.machine.exists()
            check_storage(spec.search.storage, spec.name if new else "")
        if not is_checked(spec, folder):
            try:
                subject = try_dense(subject, spec, display.progress)
            except StudyError:
                for remark in subject.remarks:  # they may explain it
                    display.note(remark.text)
                raise
        folder.path.mkdir(parents=True, exist_ok=True)
        stack.enter_context(folder.locked())
        spec = settled(spec, folder)  # again: another process may have held the lock until now
        if folder.exists:
            folder.check_machine(machine)
        folder.write_machine(machine)
        study = open_study(
            spec.name,
            folder.storage_url(spec.search.storage),
            subject.objectives,
            spec.search.sampler,
            spec.seed,
        )
        _claim(study, folder, subject)
        workers.wait_for_old_ones()
        budget = Budget(spec, study, begun, subject.learns_new_labels)
        folder.write_study(spec.to_toml())
        yield Opening(spec, folder, study, subject, budget, workers, display)


def settled(spec: Spec, folder: RunFolder) -> Spec:
    """The study with the defaults of its folder, or those of a new one.

    Raises:
        UserError: the folder holds something else, or has lost its storage.
    """
    if not folder.exists:
        folder.check_free()
        return spec.settled(None)
    there = read_spec(folder.study)
    spec = spec.settled(there)
    folder.check_study(spec.model_dump(), there.settled(there).model_dump())
    if not (spec.search.storage or folder.storage.exists()):
        raise RunError(
            f"{folder.path} has lost its {folder.storage.name}, without which it cannot go on. "
            "Choose another --out."
        )
    return spec


def is_checked(spec: Spec, folder: RunFolder) -> bool:
    """Whether the dense model needs no further check, because the run has begun."""
    return folder.exists and spec.data.check


def _claim(study: optuna.Study, folder: RunFolder, subject: Subject) -> None:
    """Mark a new Optuna study as this folder's, or check that it is, with the same subject."""
    own = {RUN: folder.read_machine()["run"], SUBJECT_DIGEST: subject.digest}
    for key, value in own.items():
        if key not in study.user_attrs:
            study.set_user_attr(key, value)
    if study.user_attrs[RUN] != own[RUN]:
        raise RunError(
            f"the storage of {folder.path} holds the study {study.study_name!r} of another run: "
            "choose another name."
        )
    if study.user_attrs[SUBJECT_DIGEST] != own[SUBJECT_DIGEST]:
        raise RunError(
            f"the model or the data changed since {folder.path} was begun. Choose another --out."
        )
