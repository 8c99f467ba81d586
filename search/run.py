"""One run of a study, from its file to its published front."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path

import optuna
import torch
from optuna.trial import TrialState

from paretoformer.evaluators.common.target import physical_cores
from paretoformer.evaluators.data.recovery_texts import has_own_texts
from paretoformer.evaluators.evaluator import Evaluator
from paretoformer.evaluators.timing.protocol import (
    FEWER_TIMES,
    REFERENCE_TIMES,
    TimingProtocol,
)
from paretoformer.search.dispatch.artifacts import ArtifactFolder
from paretoformer.search.dispatch.dispatcher import Dispatcher
from paretoformer.search.dispatch.memory import room_beside
from paretoformer.search.dispatch.pipeline import Pipeline
from paretoformer.search.dispatch.signals import interruptible
from paretoformer.search.loop import Search, stored_records
from paretoformer.search.planning.predictor import PREDICTED, Predictor
from paretoformer.search.planning.prepare import Prepared, prepare
from paretoformer.search.proposers import (
    Proposer,
    Unseen,
    alternatives,
    is_distilled,
    solved_proposers,
    standard_proposers,
)
from paretoformer.search.proposers.distilling import Distilling, progress_of
from paretoformer.search.proposers.surrogate import SurrogateSampler
from paretoformer.search.publish.choose import Unchosen, by_importance, chosen, unchosen
from paretoformer.search.publish.confirm import confirm, confirmations
from paretoformer.search.publish.front import published_table
from paretoformer.search.records.disk import room_on
from paretoformer.search.records.errors import RunError, StudyError
from paretoformer.search.records.facts import MetricFacts, RunFacts
from paretoformer.search.records.parquet import TrialsFile, write_table
from paretoformer.search.records.record import TrialRecord
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.records.scores import Scores
from paretoformer.search.records.throttle import Seldom
from paretoformer.search.report.display import Display
from paretoformer.search.report.page import write_report
from paretoformer.search.report.tracking import Tracker
from paretoformer.search.study.budget import Budget, is_short
from paretoformer.search.study.first_screen import first_screen
from paretoformer.search.study.optuna_study import check_storage, open_study
from paretoformer.search.study.sampler_choice import predicts, uses_surrogate
from paretoformer.search.study.spec import DEFAULT_STUDY, Spec, check_varies, load_spec, read_spec
from paretoformer.search.study.subject import Subject, load_subject, try_dense
from paretoformer.search.workers import Workers
from paretoformer.spaces.recovery import Teacher

RUN = "run"
"""User attribute of the study: the id of its run folder, as in `machine.json`."""
SUBJECT_DIGEST = "fingerprint"
"""User attribute of the study: a digest of model and data."""
Dispatchers = Callable[..., AbstractContextManager[Dispatcher]]
"""Starts workers; `fresh`: those of the confirmation."""


def search(
    study: str | Path = DEFAULT_STUDY,
    *,
    out: str | Path | None = None,
    trials: int | None = None,
    seed: int | None = None,
    require: Sequence[str] = (),
    minutes: float | None = None,
    address: str | None = None,
    mlflow: str | None = None,
    quiet: bool = False,
) -> Path:
    """Run a study, or go on with it where an interrupted run left it.

    study: a .toml file or a built-in name. out: the run folder; default `runs/<name>`.
    trials, seed, require, minutes: override the file; minutes stand in place of its trials, and
    trials in place of its minutes.
    address: an existing Ray cluster; default a local one. mlflow: where the front is logged, an
    MLflow tracking URI.

    Returns the run folder, with `trials.parquet`, `front.parquet` and `report.html`.

    Raises:
        UserError: something about the study, its data, this machine or the folder must be mended.
        StudyFailed: the uncompressed model itself cannot be measured.
        Interrupted: SIGINT or SIGTERM; what was finished is kept.
    """
    with interruptible(), Display(quiet=quiet) as display:
        tracker = None if mlflow is None else Tracker(mlflow)  # known before anything is measured
        spec = load_spec(study, trials=trials, seed=seed, require=require, minutes=minutes)
        folder = RunFolder(out if out is not None else Path("runs") / spec.name)
        with room_on(folder.path):
            _Run(spec, folder, address, display).execute()
        if tracker is not None:
            tracker.log(folder)
    return folder.path


class _Run:
    def __init__(
        self, spec: Spec, folder: RunFolder, address: str | None, display: Display
    ) -> None:
        self.spec = spec
        self.folder = folder
        self.address = address
        self.display = display

    def execute(self) -> None:
        """Check everything, then write; measure; publish."""
        begun = time.monotonic()
        check_varies(self.spec)
        self._check_folder()
        if self.spec.target.resource and not self.address:
            raise StudyError(
                f"target.resource {self.spec.target.resource!r} is a node of a Ray cluster: "
                "give the cluster's --address."
            )
        subject = load_subject(self.spec, self.display.progress)
        with ExitStack() as stack:
            workers = Workers(
                self.spec, subject.target, self.folder, self.address, self.display, stack
            )
            machine = workers.machine()
            if self.spec.search.storage:
                new = not self.folder.machine.exists()
                check_storage(self.spec.search.storage, self.spec.name if new else "")
            if not self._is_checked:
                subject = try_dense(subject, self.spec, self.display.progress)
            self.folder.path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(self.folder.locked())
            self._check_folder()  # again: another process may have had the folder until now
            if self.folder.exists:
                self.folder.check_machine(machine)
            self.folder.write_machine(machine)
            study = open_study(
                self.spec.name,
                self.folder.storage_url(self.spec.search.storage),
                subject.objectives,
                self.spec.search.sampler,
                self.spec.seed,
            )
            self._claim(study, subject)
            workers.wait_for_old_ones()
            budget = Budget(self.spec, study, begun)
            self.folder.write_study(self.spec.to_toml())
            self.display.facts(first_screen(self.spec, subject, self.folder))
            for remark in subject.remarks:
                self.display.note(remark.text)
            prepared = prepare(
                study,
                self.spec,
                subject,
                self.folder,
                self.display.progress,
                lambda: budget.is_preparation_over,
                workers.screening if workers.many else None,
            )
            budget.keep()
            self._tell_what_is_left_out(prepared)
            if prepared.space.size == 1 and not study.get_trials(deepcopy=False):
                raise StudyError(
                    "there is nothing to search: on this model and machine, every axis of [space] "
                    "has one value. The notes say what was left out, and why."
                )
            if self.spec.recovery.least_squares and not has_own_texts(subject.workload):
                self.display.note(
                    "Repairs use the texts that ranked the heads: there are too few others."
                )
            if "steer" not in subject.workload.splits:
                self.display.note(
                    "Fidelity and divergence are those on the search examples: there are too few "
                    "others."
                )
            artifacts = ArtifactFolder(self.folder.models, subject.model_digest)
            dispatcher = partial(self._dispatcher, workers, subject, prepared)
            records = self._measure(stack, study, subject, prepared, dispatcher, artifacts, budget)
            self._publish(study, subject, prepared, records)
            picked = self._chosen(study, subject, prepared, records)
            artifacts.drop(unchosen(records, picked))

    def _tell_what_is_left_out(self, prepared: Prepared) -> None:
        for axis in prepared.begun_without:
            self.display.note(f"This run was begun before there was {axis!r}: it stays as it is.")
        for axis, reasons in prepared.left_out.items():
            for value, reason in reasons.items():
                self.display.note(f"Not tried: {axis} {value}: {reason}.")
        for note in prepared.notes:
            self.display.note(note)

    @property
    def _is_checked(self) -> bool:
        """A run that was begun passed the check, or began before there was one."""
        return self.folder.exists and self.spec.data.check

    def _check_folder(self) -> None:
        if self.folder.exists:
            there = read_spec(self.folder.study)
            self.spec = self.spec.settled(there)
            self.folder.check_study(self.spec.model_dump(), there.settled(there).model_dump())
            if not (self.spec.search.storage or self.folder.storage.exists()):
                raise RunError(
                    f"{self.folder.path} has lost its {self.folder.storage.name}, without which "
                    "it cannot go on. Choose another --out."
                )
        else:
            self.spec = self.spec.settled(None)
            self.folder.check_free()

    def _claim(self, study: optuna.Study, subject: Subject) -> None:
        """Make a new Optuna study this folder's, or see that it is, and about the same subject."""
        own = {RUN: self.folder.read_machine()["run"], SUBJECT_DIGEST: subject.digest}
        for key, value in own.items():
            if key not in study.user_attrs:
                study.set_user_attr(key, value)
        if study.user_attrs[RUN] != own[RUN]:
            raise RunError(
                f"the storage of {self.folder.path} holds the study {self.spec.name!r} of another "
                "run: choose another name."
            )
        if study.user_attrs[SUBJECT_DIGEST] != own[SUBJECT_DIGEST]:
            raise RunError(
                f"the model or the data changed since {self.folder.path} was begun. "
                "Choose another --out."
            )

    def _measure(
        self,
        stack: ExitStack,
        study: optuna.Study,
        subject: Subject,
        prepared: Prepared,
        dispatcher: Dispatchers,
        artifacts: ArtifactFolder,
        budget: Budget,
    ) -> list[TrialRecord]:
        """Search, then confirm."""
        records = self._search(study, subject, prepared, dispatcher, artifacts, budget)
        others = alternatives(prepared.space)
        picked = self._chosen(study, subject, prepared, records)
        near = len(chosen(records, subject.objectives, others)) - len(picked)
        if near:
            wanted = " and ".join(each.words for each in subject.requirements)
            self.display.note(
                f"Not confirmed: {near} of the points that may be as good as the front, since even "
                f"the better end of their intervals does not satisfy {wanted}."
            )
        limited = self.spec.search.minutes is not None
        if limited:
            picked = by_importance(picked, subject.objectives, subject.requirements, others)
        confirmed = confirm(
            study,
            picked,
            lambda: Pipeline(stack.enter_context(dispatcher(fresh=True)), "confirm", artifacts),
            None if limited else self.spec.seed,
            self.display.progress,
            lambda: budget.is_over,
            self._scores(subject),
        )
        budget.keep()
        if missing := sum(each.candidate.id not in confirmed for each in picked):
            self.display.note(
                f"The {budget.minutes:g} minutes are over. Points of the search's front that were "
                f"not confirmed, and are left out: {missing}. More --minutes go on."
            )
        disturbed = sum(record.disturbed for record in confirmed.values())
        if disturbed:
            self.display.note(
                f"{disturbed} of {len(confirmed)} confirmed points were timed beside other work: "
                "they are marked. The same command times them anew."
            )
        return records

    def _search(
        self,
        study: optuna.Study,
        subject: Subject,
        prepared: Prepared,
        dispatcher: Dispatchers,
        artifacts: ArtifactFolder,
        budget: Budget,
    ) -> list[TrialRecord]:
        """Measure candidates until there are as many as the study wants."""
        space, objectives = prepared.space, subject.objectives
        beyond = sum(not space.holds(each) for each in (space.dense, *alternatives(space)))
        wanted = min(self.spec.trials, space.size + beyond)
        facts = self._facts(subject, prepared, subject.metrics)
        predicted = PREDICTED if prepared.predictor is not None else ()
        file = TrialsFile(
            self.folder.trials, list(subject.metrics), subject.sampled, facts, predicted
        )
        records = stored_records(study)
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        distilling = Distilling(study, subject, budget.distill_minutes)
        searched = sum(record.counts for record in records)
        unmeasured = not any(record.candidate.is_dense for record in records)
        more = searched < wanted and (unmeasured or not budget.is_searched)
        if more or running or distilling.is_left(records):
            showing, keeping = Seldom(), Seldom()

            def show() -> None:
                seconds = None
                if self.spec.search.minutes is not None:
                    seconds = budget.spent, budget.search_seconds
                self.display.trials(records, wanted, objectives, seconds)

            showing(show)

            published = confirmations(study).keys()  # which stays whole until the next one is

            lost = Unchosen(objectives, alternatives(space))
            learns = uses_surrogate(
                self.spec.search.sampler, objectives, has_table=prepared.predictor is not None
            )

            def on_record(so_far: Sequence[TrialRecord]) -> None:
                nonlocal records
                records = list(so_far)
                file.update(records)
                others = lost.since(records)  # those under way are not among them
                artifacts.drop(each for each in others if each.id not in published)
                keeping(budget.keep)
                showing(show)

            begun_at, before = budget.spent, len(records)
            with dispatcher(fresh=False) as workers, self._scores(subject) as scores:
                search = Search(
                    study,
                    space,
                    self._proposers(prepared, subject, workers.slots, rounds=not learns),
                    Unseen(space, self.spec.seed),
                    Pipeline(workers, "search", artifacts),
                    [metric.name for metric in objectives],
                    on_record,
                    subject.requirements if subject.required else (),
                    predict=None if prepared.predictor is None else prepared.predictor.of,
                    trimmed=lambda record: scores.take(record, "search"),
                )
                search.is_over = lambda: (
                    not budget.has_time_for(
                        begun_at, len(search.known) - before, len(search.under_way)
                    )
                )
                if learns and prepared.predictor is not None:  # goes on by itself, without rounds
                    study.sampler = self._surrogate(prepared.predictor, subject, search)
                    search.at_once = 2 * workers.slots
                begun = progress_of(distilling.begun(records), self.folder.models)
                with self.display.watching("Distilling, seconds", begun):
                    records = search.run(wanted)
                    showing.catch_up()
                if picks := distilling.left(records, workers.slots):
                    look = progress_of(picks, self.folder.models)
                    with self.display.watching("Distilling, seconds", look):
                        records = search.measure(picks)
                        showing.catch_up()
        if budget.distill_minutes and not any(map(is_distilled, records)):
            self.display.note(
                "Nothing was distilled: no repaired candidate on the search's front might come to "
                "satisfy the requirement."
            )
        file.update(records, now=True)
        return records

    def _scores(self, subject: Subject) -> Scores:
        """Those of single examples: the samples of timings are readings, and stay in records."""
        scored = [name for name in subject.metrics if name not in subject.sampled]
        return Scores(self.folder.scores, scored)

    def _proposers(
        self, prepared: Prepared, subject: Subject, slots: int, *, rounds: bool
    ) -> Sequence[Proposer]:
        """What is solved from the block table, where the study has one."""
        wanted = subject.objectives, subject.requirements
        if prepared.predictor is None or not predicts(subject.objectives):
            return standard_proposers(prepared.space, *wanted)
        return solved_proposers(prepared.predictor, *wanted, rounds=rounds, at_once=slots + 1)

    def _surrogate(
        self, predictor: Predictor, subject: Subject, search: Search
    ) -> SurrogateSampler:
        """The sampler that learns from what the search has measured."""
        wanted = subject.objectives, subject.requirements
        # A restarted sampler must not draw again what it drew before it was cut off.
        seed = (self.spec.seed + len(search.study.get_trials(deepcopy=False))) % 2**32
        sampler = SurrogateSampler(predictor, *wanted, seed)
        sampler.records = lambda: search.known
        sampler.under_way = lambda: search.under_way
        return sampler

    def _chosen(
        self,
        study: optuna.Study,
        subject: Subject,
        prepared: Prepared,
        records: Sequence[TrialRecord],
    ) -> list[TrialRecord]:
        others, known = alternatives(prepared.space), confirmations(study)
        return chosen(records, subject.objectives, others, subject.requirements, known)

    def _publish(
        self,
        study: optuna.Study,
        subject: Subject,
        prepared: Prepared,
        records: list[TrialRecord],
    ) -> None:
        """Write the front and the report."""
        others = alternatives(prepared.space)
        confirmed = self._scores(subject).restored(confirmations(study), "confirm")
        picked = self._chosen(study, subject, prepared, records)
        table = published_table(
            [each for each in picked if each.candidate.id in confirmed],
            confirmed,
            subject.objectives,
            subject.confirmed,
            subject.sampled,
            others,
        )
        facts = self._facts(subject, prepared, subject.confirmed)
        write_table(table, self.folder.front, facts)
        write_report(self.folder)

    def _facts(self, subject: Subject, prepared: Prepared, metrics: Collection[str]) -> RunFacts:
        """The metadata of a Parquet file that holds these metrics."""
        found = {name: subject.metrics[name] for name in metrics}
        return RunFacts(
            study=self.spec.model_dump(),
            machine=self.folder.read_machine(),
            objectives=tuple(metric.name for metric in subject.objectives),
            metrics={
                name: MetricFacts(
                    m.unit,
                    m.direction,
                    m.role,
                    m.requirement if name in subject.reported else "",
                )
                for name, m in found.items()
            },
            model_digest=subject.model_digest,
            left_out=prepared.left_out,
            required=tuple(each.text for each in subject.requirements) if subject.required else (),
            remarks=tuple(each.text for each in subject.remarks),
        )

    def _evaluator(self, subject: Subject, teacher: Teacher | None = None) -> Evaluator:
        timing = self.spec.timing
        times = FEWER_TIMES if is_short(self.spec) else REFERENCE_TIMES
        return Evaluator(
            subject.model,
            subject.task,
            subject.workload,
            subject.target,
            subject.metrics,
            {
                "search": TimingProtocol(timing.width, timing.search_seconds, times),
                "confirm": TimingProtocol(timing.width, timing.confirm_seconds, times),
            },
            self.folder.models.resolve(),
            subject.confirmed,
            teacher,
        )

    def _teacher(self, subject: Subject, prepared: Prepared) -> Teacher | None:
        """One that all workers share, if they compute on the CPU in the model's own precision."""
        target, weights = subject.target, next(subject.model.parameters())
        here = torch.device("cpu"), weights.dtype
        if not prepared.mends or (torch.device(target.device), target.torch_dtype) != here:
            subject.forget_teacher()
            return None
        torch.set_num_threads(physical_cores())
        teacher = subject.teacher(self.display.progress)
        subject.forget_teacher()
        if room_beside(teacher.nbytes) > 0:
            return teacher
        self.display.note(
            f"There is no memory to share {teacher.nbytes / 1e9:.1f} GB for repairs: each worker "
            "computes them again, into temporary files."
        )
        return None

    def _dispatcher(
        self, workers: Workers, subject: Subject, prepared: Prepared, *, fresh: bool
    ) -> AbstractContextManager[Dispatcher]:
        # What is confirmed was repaired in the search.
        teacher = None if fresh else self._teacher(subject, prepared)
        return workers.measuring(self._evaluator(subject, teacher), fresh=fresh)
