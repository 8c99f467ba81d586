"""Searching: the loop over a session's candidates, with its proposers, files and progress."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from optuna.trial import TrialState

from paretoformer.search.dispatch.pipeline import Pipeline
from paretoformer.search.loop import Search
from paretoformer.search.measuring import dispatcher
from paretoformer.search.planning.predictor import PREDICTED
from paretoformer.search.proposers import Proposer, Unseen, is_distilled, study_proposers
from paretoformer.search.proposers.distilling import progress_of
from paretoformer.search.proposers.solved import NEAR, REACH, REACH_BY_LABELS
from paretoformer.search.publish.choose import chosen, dropped
from paretoformer.search.publish.confirm import confirmed_ids
from paretoformer.search.records.parquet import TrialsFile
from paretoformer.search.records.record import TrialRecord
from paretoformer.search.records.throttle import Throttle
from paretoformer.search.session import Session
from paretoformer.spaces.candidate import Candidate

LEARNS = (
    "Distillation also learns from the labels of the texts to repair and to rank. None of them is "
    "measured, but they are part of your data: judge the answer on others."
)


def has_work(session: Session, records: Sequence[TrialRecord]) -> bool:
    """Whether candidates are left to search or distil; if not, no workers are needed."""
    counted = sum(record.counts for record in records)
    unmeasured = not any(record.candidate.is_dense for record in records)
    more = counted < session.wanted and (unmeasured or not session.budget.is_searched)
    running = session.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return bool(more or running or session.distilling.is_left(records))


@dataclass(frozen=True)
class Searching:
    """A session's loop on started workers."""

    session: Session
    loop: Search
    slots: int
    keeper: _Keeper

    def explore(self) -> None:
        """Measure candidates until enough are measured or time is over."""
        loop, budget = self.loop, self.session.budget
        begun_at, before = budget.spent, len(loop.known)
        loop.is_over = lambda: (
            not budget.has_time_for(
                begun_at,
                len(loop.known) - before,
                len(loop.under_way),
                self.session.compressed(loop.records),
            )
        )
        with self._watched(self.session.distilling.begun(self.keeper.records)):
            loop.run(self.session.wanted)

    def distil(self) -> None:
        """Distil the most promising candidates, if the study has minutes for it."""
        self.session.budget.begin_distilling()
        told = not self.session.subject.learns_labels
        while picks := self.session.distilling.left(self.loop.records, self.slots):
            if not told:
                self.session.display.note(LEARNS)
                told = True
            with self._watched(picks):
                self.loop.measure(picks)
        self.session.budget.is_distilled = True

    @contextmanager
    def _watched(self, picks: Sequence[Candidate]) -> Iterator[None]:
        look = progress_of(picks, self.session.folder.models)
        with self.session.display.watching("Distilling, seconds", look):
            yield
            self.keeper.catch_up()


@contextmanager
def searching(session: Session, records: Sequence[TrialRecord]) -> Iterator[Searching]:
    """Start workers, and a loop that continues from the `records` of earlier runs."""
    study, subject, prepared = session.study, session.subject, session.prepared
    predictor = session.prepared.predictor
    keeper = _Keeper(session, records)
    with dispatcher(session, fresh=False) as workers, session.scores as scores:
        loop = Search(
            study,
            prepared.space,
            _proposers(session, workers.slots),
            Unseen(prepared.space, session.spec.seed),
            Pipeline(
                workers,
                "search",
                session.artifacts,
                lambda: session.baseline(keeper.records),
            ),
            [metric.name for metric in subject.objectives],
            keeper.on_record,
            subject.requirements if subject.required else (),
            predict=None if predictor is None else predictor.of,
            trimmed=lambda record: scores.take(record, "search"),
            earlier=records,
        )
        yield Searching(session, loop, workers.slots, keeper)


def write_trials(session: Session, records: Sequence[TrialRecord]) -> None:
    """Write `trials.parquet`; add a note if minutes were too few, or were left unused."""
    _trials_file(session).update(records, now=True)
    if session.has_minutes and not session.compressed(records):
        session.display.note(
            f"{session.budget.minutes:g} minutes were too few for this model on this machine: no "
            "compressed candidate was measured. The same command with more --minutes goes on."
        )
    elif session.budget.planned_minutes and not any(map(is_distilled, records)):
        reason = (
            "no repaired candidate on the search's front might come to satisfy the requirement"
            if session.budget.distill_minutes
            else "the search took its minutes"
        )
        session.display.note(f"Nothing was distilled: {reason}.")


def _trials_file(session: Session) -> TrialsFile:
    metrics = session.subject.metrics
    predicted = PREDICTED if session.prepared.predictor is not None else ()
    facts = session.facts(metrics)
    sampled = session.subject.sampled
    return TrialsFile(session.folder.trials, list(metrics), sampled, facts, predicted)


def _proposers(session: Session, slots: int) -> Sequence[Proposer]:
    spec, subject, prepared = session.spec, session.subject, session.prepared
    return study_proposers(
        prepared.space,
        prepared.predictor,
        spec.search.sampler,
        subject.objectives,
        subject.requirements,
        seed=spec.seed,
        slots=slots,
        reach=_reach(session),
    )


def _reach(session: Session) -> float:
    """Multiple of the allowed loss of quality that distillation may bring a candidate back from."""
    if session.has_minutes and not session.budget.distill_minutes:
        return NEAR
    return REACH_BY_LABELS if session.subject.learns_new_labels else REACH


class _Keeper:
    """Writes and shows the loop's records so far."""

    def __init__(self, session: Session, records: Sequence[TrialRecord]) -> None:
        self._session = session
        self.records = records
        self._file = _trials_file(session)
        self._published = confirmed_ids(session.study)  # stay complete until the next publication
        self._showing, self._keeping, self._dropping = Throttle(), Throttle(), Throttle()
        self._showing(self._show)

    def on_record(self, records: Sequence[TrialRecord]) -> None:
        self.records = records
        self._file.update(records)
        self._dropping(self._drop)
        self._keeping(self._session.budget.keep)
        self._showing(self._show)

    def catch_up(self) -> None:
        self._showing.catch_up()

    def _drop(self) -> None:
        """Drop the artifacts of candidates that will not be confirmed."""
        session, subject = self._session, self._session.subject
        picked = chosen(
            self.records, subject.objectives, session.alternatives, subject.requirements
        )
        others = dropped(self.records, picked)
        session.artifacts.drop(c for c in others if c.id not in self._published)

    def _show(self) -> None:
        session = self._session
        budget = session.budget
        seconds = (budget.spent, budget.search_seconds) if session.has_minutes else None
        session.display.trials(self.records, session.wanted, session.subject.objectives, seconds)
