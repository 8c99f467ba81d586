"""Searching: the loop over a session's candidates, with its proposers, files and progress."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from optuna.trial import TrialState

from paretoformer.search.dispatch.pipeline import Pipeline
from paretoformer.search.loop import Search
from paretoformer.search.measuring import dispatcher
from paretoformer.search.planning.predictor import PREDICTED, Predictor
from paretoformer.search.proposers import (
    Proposer,
    Unseen,
    is_distilled,
    solved_proposers,
    standard_proposers,
)
from paretoformer.search.proposers.distilling import progress_of
from paretoformer.search.proposers.surrogate import SurrogateSampler
from paretoformer.search.publish.choose import Unchosen
from paretoformer.search.publish.confirm import confirmations
from paretoformer.search.records.parquet import TrialsFile
from paretoformer.search.records.record import TrialRecord
from paretoformer.search.records.throttle import Seldom
from paretoformer.search.session import Session
from paretoformer.search.study.sampler_choice import predicts, uses_surrogate
from paretoformer.spaces.candidate import Candidate


def has_work(session: Session, records: Sequence[TrialRecord]) -> bool:
    """Whether candidates are left to search or distil, so that workers are needed."""
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
        """Measure candidates until there are as many as wanted, or the time is over."""
        begun = self.session.distilling.begun(self.keeper.records)
        with self._watched(begun):
            self.loop.run(self.session.wanted)

    def distil(self) -> None:
        """Distil the most promising candidates, if the study has minutes for it."""
        if picks := self.session.distilling.left(self.loop.records, self.slots):
            with self._watched(picks):
                self.loop.measure(picks)

    @contextmanager
    def _watched(self, picks: Sequence[Candidate]) -> Iterator[None]:
        look = progress_of(picks, self.session.folder.models)
        with self.session.display.watching("Distilling, seconds", look):
            yield
            self.keeper.catch_up()


@contextmanager
def searching(session: Session, records: Sequence[TrialRecord]) -> Iterator[Searching]:
    """Start workers, and a loop that goes on from the `records` of earlier runs."""
    study, subject, prepared = session.study, session.subject, session.prepared
    budget, predictor = session.budget, session.prepared.predictor
    learns = uses_surrogate(
        session.spec.search.sampler, subject.objectives, has_table=predictor is not None
    )
    keeper = _Keeper(session, records)
    begun_at, before = budget.spent, len(records)
    with dispatcher(session, fresh=False) as workers, session.scores as scores:
        loop = Search(
            study,
            prepared.space,
            _proposers(session, workers.slots, rounds=not learns),
            Unseen(prepared.space, session.spec.seed),
            Pipeline(workers, "search", session.artifacts),
            [metric.name for metric in subject.objectives],
            keeper.on_record,
            subject.requirements if subject.required else (),
            predict=None if predictor is None else predictor.of,
            trimmed=lambda record: scores.take(record, "search"),
        )
        loop.is_over = lambda: (
            not budget.has_time_for(begun_at, len(loop.known) - before, len(loop.under_way))
        )
        if learns and predictor is not None:  # goes on by itself, without rounds
            study.sampler = surrogate(session, predictor, loop)
            loop.at_once = 2 * workers.slots
        yield Searching(session, loop, workers.slots, keeper)


def surrogate(session: Session, predictor: Predictor, loop: Search) -> SurrogateSampler:
    """The sampler that learns from what the loop has measured."""
    subject = session.subject
    # A restarted sampler must not draw again what it drew before it was cut off.
    seed = (session.spec.seed + len(loop.study.get_trials(deepcopy=False))) % 2**32
    sampler = SurrogateSampler(predictor, subject.objectives, subject.requirements, seed)
    sampler.records = lambda: loop.known
    sampler.under_way = lambda: loop.under_way
    return sampler


def write_trials(session: Session, records: Sequence[TrialRecord]) -> None:
    """Write `trials.parquet`; say so if minutes of distillation were left unused."""
    _trials_file(session).update(records, now=True)
    if session.budget.distill_minutes and not any(map(is_distilled, records)):
        session.display.note(
            "Nothing was distilled: no repaired candidate on the search's front might come to "
            "satisfy the requirement."
        )


def _trials_file(session: Session) -> TrialsFile:
    metrics = session.subject.metrics
    predicted = PREDICTED if session.prepared.predictor is not None else ()
    facts = session.facts(metrics)
    sampled = session.subject.sampled
    return TrialsFile(session.folder.trials, list(metrics), sampled, facts, predicted)


def _proposers(session: Session, slots: int, *, rounds: bool) -> Sequence[Proposer]:
    """Solved from the block table, where the study has one."""
    subject, predictor = session.subject, session.prepared.predictor
    wanted = subject.objectives, subject.requirements
    if predictor is None or not predicts(subject.objectives):
        return standard_proposers(session.prepared.space, *wanted)
    return solved_proposers(predictor, *wanted, rounds=rounds, at_once=slots + 1)


class _Keeper:
    """Writes and shows what the loop has measured so far."""

    def __init__(self, session: Session, records: Sequence[TrialRecord]) -> None:
        self._session = session
        self.records = records
        self._file = _trials_file(session)
        self._published = confirmations(session.study).keys()  # whole until the next is published
        self._dropped = Unchosen(session.subject.objectives, session.alternatives)
        self._artifacts = session.artifacts
        self._showing, self._keeping = Seldom(), Seldom()
        self._showing(self._show)

    def on_record(self, records: Sequence[TrialRecord]) -> None:
        self.records = records
        self._file.update(records)
        others = self._dropped.since(records)  # those under way are not among them
        self._artifacts.drop(c for c in others if c.id not in self._published)
        self._keeping(self._session.budget.keep)
        self._showing(self._show)

    def catch_up(self) -> None:
        self._showing.catch_up()

    def _show(self) -> None:
        session = self._session
        budget = session.budget
        seconds = (budget.spent, budget.search_seconds) if session.has_minutes else None
        session.display.trials(self.records, session.wanted, session.subject.objectives, seconds)
