"""The loop: ask the study for candidates, have them measured, tell it what came out."""

from __future__ import annotations

from bisect import insort
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.trial import FrozenTrial, TrialState

from paretoformer.evaluators.outcome import Outcome, Result
from paretoformer.search.dispatch.pipeline import Pipeline
from paretoformer.search.proposers import Proposer, Records
from paretoformer.search.records.errors import StudyFailed
from paretoformer.search.records.record import RECORD, TrialRecord
from paretoformer.search.records.requirement import Requirement
from paretoformer.search.report.pictures import attach_picture
from paretoformer.search.study.optuna_study import belongs_to_population, keep, unfinished
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.space import Space

DUPLICATE = "duplicate_of"
"""User attribute of a trial that proposed a candidate measured before: the number of that trial."""
CANDIDATE = "candidate"
"""User attribute of a trial whose candidate no parameters of the space can say: its JSON text."""
PLANTED = "planted"
"""User attribute of the study: ids of the candidates that were put in its queue."""
UNTOLD = 1e6
"""By how much a requirement is missed on what a runtime cannot tell."""
PATIENCE = 20
"""Duplicates in a row after which the loop asks `spare` for a candidate."""


@dataclass
class Search:
    """One search of a space, from wherever its study stands.

    proposers: asked before the sampler; each of their candidates is tried once.
    spare: asked when the sampler keeps repeating itself.
    names: the objectives, in the study's order.
    on_record: called after each candidate, with all records so far; they are not to be changed.
    requirements: what the sampler is to keep to.
    is_over: whether the time is over, so that nothing more is begun.
    predict: what is expected of a candidate, kept with what came out.
    trimmed: a record without what is kept elsewhere.
    at_once: the sampler is not asked while this many candidates are under way; None: as many as
    keep the workers busy. One that learns chooses better with fewer.
    """

    study: optuna.Study
    space: Space
    proposers: Sequence[Proposer]
    spare: Proposer
    pipeline: Pipeline
    names: Sequence[str]
    on_record: Callable[[Sequence[TrialRecord]], None] = lambda records: None
    requirements: Sequence[Requirement] = ()
    is_over: Callable[[], bool] = lambda: False
    predict: Callable[[Candidate, Records], Mapping[str, float]] | None = None
    trimmed: Callable[[TrialRecord], TrialRecord] = lambda record: record
    at_once: int | None = None
    _records: dict[str, TrialRecord] = field(default_factory=dict)
    _by_trial: list[TrialRecord] = field(default_factory=list)
    _uncounted: int = 0
    _planted: dict[str, None] = field(default_factory=dict)
    _asked: dict[int, tuple[optuna.Trial, Candidate]] = field(default_factory=dict)
    _predicted: dict[int, Mapping[str, float]] = field(default_factory=dict)
    _parked: dict[str, list[optuna.Trial]] = field(default_factory=dict)
    _queued: int = 0
    _duplicates: int = 0
    _exhausted: bool = False

    def run(self, trials: int) -> list[TrialRecord]:
        """Measure candidates until there are `trials`, the space has no more, or time is over.

        Those that their runtime turned out to be unable to run do not count.

        Trials that an earlier, interrupted run had begun come first, under their numbers.

        Returns one record a candidate, the dense model's first.

        Raises:
            StudyFailed: the dense model cannot be measured.
        """
        self._begin()
        self._queued = len(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
        self._enqueue_proposals()
        for trial in unfinished(self.study):
            self._take(trial)
        if self._dense is None:
            self._measure_dense()
        while True:
            self._enqueue_proposals()
            while self._wants_more(trials):
                self._take(self._ask())
            finished = self.pipeline.finished()
            if not finished:
                return self.records
            for number, result in finished:
                self._finish(number, result)

    @property
    def known(self) -> Records:
        """Candidate id -> its record."""
        return self._records

    @property
    def under_way(self) -> list[Candidate]:
        return [candidate for _, candidate in self._asked.values()]

    @property
    def records(self) -> list[TrialRecord]:
        return list(self._by_trial)

    def measure(self, candidates: Iterable[Candidate]) -> list[TrialRecord]:
        """Measure these besides the trials that were asked for, whatever else is queued.

        Those that an interrupted run had begun go on where they were.
        """
        self._begin()
        begun = [self._candidate(trial).id for trial in unfinished(self.study)]
        for candidate in candidates:
            if candidate.id not in self._records and candidate.id not in begun:
                self.study.add_trial(
                    optuna.trial.create_trial(
                        state=TrialState.RUNNING,
                        user_attrs={CANDIDATE: candidate.to_json()},
                        system_attrs={"fixed_params": self.space.params(candidate)},
                    )
                )
        for trial in unfinished(self.study):
            self._take(trial)
        while finished := self.pipeline.finished():
            for number, result in finished:
                self._finish(number, result)
        return self.records

    def _begin(self) -> None:
        """Know what the study holds."""
        self._records, self._by_trial, self._uncounted = {}, [], 0
        for record in {r.candidate.id: r for r in stored_records(self.study)}.values():
            self._add(record)
        self._planted = dict.fromkeys(self.study.user_attrs.get(PLANTED, []))

    def _add(self, record: TrialRecord) -> None:
        self._records[record.candidate.id] = record
        insort(self._by_trial, record, key=lambda each: each.trial)
        self._uncounted += not record.counts

    @property
    def _dense(self) -> TrialRecord | None:
        return self._records.get(self.space.dense.id)

    def _enqueue_proposals(self) -> None:
        """Queue what the proposers want and what was not queued before, by this run or another."""
        wanted = (each for p in self.proposers for each in p.propose(self._records))
        new = {each.id: each for each in wanted if each.id not in self._planted}
        if new:
            self._enqueue(new.values())
            self._planted |= dict.fromkeys(new)
            self.study.set_user_attr(PLANTED, list(self._planted))

    def _enqueue(self, candidates: Iterable[Candidate]) -> None:
        for candidate in candidates:
            attributes = {} if self.space.holds(candidate) else {CANDIDATE: candidate.to_json()}
            self.study.enqueue_trial(self.space.params(candidate), user_attrs=attributes)
            self._queued += 1

    def _measure_dense(self) -> None:
        """Every other measurement is compared with the dense model's, so it goes first."""
        while not self._asked:
            self._take(self._ask())
        while self._dense is None:
            for number, result in self.pipeline.finished():
                if result.outcome is not Outcome.OK:
                    raise StudyFailed(
                        "the uncompressed model cannot be measured: "
                        f"{result.message or result.outcome.label}. {result.outcome.value}"
                    )
                self._finish(number, result)

    def _wants_more(self, trials: int) -> bool:
        underway = len(self._asked)
        known = len(self._records) - min(self._uncounted, trials) + underway
        parked = sum(len(each) for each in self._parked.values())
        room = underway + parked < self.pipeline.capacity
        if self.is_over() and self._dense is not None:
            return False
        more = self._queued or (self._unseen and not self._exhausted)
        return bool(known < trials and more) and room and not self._waits()

    @property
    def _unseen(self) -> bool:
        """Whether the space has candidates that nobody asked for yet."""
        if len(self._records) + len(self._asked) < self.space.size:
            return True
        seen = [record.candidate for record in self._records.values()]
        seen += [candidate for _, candidate in self._asked.values()]
        return sum(map(self.space.holds, seen)) < self.space.size

    def _waits(self) -> bool:
        """Whether it is better to wait for what is under way than to ask the sampler."""
        if self._queued or not self._asked:
            return False
        if self.at_once is not None and len(self._asked) >= self.at_once:
            return True
        return any(proposer.waits(self._records) for proposer in self.proposers)

    def _ask(self) -> optuna.Trial:
        if self._duplicates >= PATIENCE:
            underway = {
                c.id: TrialRecord(n, c, Result(Outcome.OK)) for n, (_, c) in self._asked.items()
            }
            spare = self.spare.propose(ChainMap(underway, self._records))
            self._exhausted = not spare
            self._enqueue(spare)
        self._queued = max(0, self._queued - 1)  # what is queued comes before what is sampled
        return self.study.ask()

    def _take(self, trial: optuna.Trial) -> None:
        """Measure what a trial proposes, unless it is known, or being measured."""
        if RECORD in trial.user_attrs:  # cut off between the record and the tell
            self._tell(trial, TrialRecord.from_json(trial.user_attrs[RECORD]))
            return
        belongs_to_population(self.study, trial)
        candidate = self._candidate(trial)
        known = self._records.get(candidate.id)
        if known is not None:
            self._duplicates += 1
            self._tell_duplicate(trial, known)
        elif any(candidate == other for _, other in self._asked.values()):
            self._duplicates += 1
            self._parked.setdefault(candidate.id, []).append(trial)
        else:
            self._duplicates = 0
            self._asked[trial.number] = trial, candidate
            if self.predict is not None:
                self._predicted[trial.number] = self.predict(candidate, self._records)
            keep(trial)
            dense = self._dense
            self.pipeline.start(trial.number, candidate, dense.measurements if dense else None)

    def _candidate(self, trial: optuna.Trial) -> Candidate:
        suggested = self.space.suggest(trial)
        told = trial.user_attrs.get(CANDIDATE)
        return suggested if told is None else Candidate.from_json(told)

    def _finish(self, number: int, result: Result) -> None:
        trial, candidate = self._asked.pop(number)
        record = TrialRecord(number, candidate, result, self._predicted.pop(number, {}))
        record = self.trimmed(record)
        self._add(record)
        trial.set_user_attr(RECORD, record.to_json())
        attach_picture(trial)
        self._tell(trial, record)
        for parked in self._parked.pop(candidate.id, []):
            self._tell_duplicate(parked, record)
        self.on_record(self._by_trial)

    def _tell(self, trial: optuna.Trial, record: TrialRecord) -> None:
        values = record.values(self.names)
        if record.ok and all(value == value for value in values):  # NaN: an objective is not there
            for requirement in self.requirements:
                trial.set_constraint(requirement.text, self._excess(requirement, record))
            self.study.tell(trial, values)
        else:
            self.study.tell(trial, state=TrialState.FAIL)

    def _excess(self, requirement: Requirement, record: TrialRecord) -> float:
        """As Optuna takes it: 0 where the requirement is satisfied, else by how much it is not."""
        dense = self._dense or record  # which is the first
        if requirement.metric not in record.measurements:
            return UNTOLD
        found, reference = (r.measurements[requirement.metric].value for r in (record, dense))
        return requirement.shortfall(found, reference)

    def _tell_duplicate(self, trial: optuna.Trial, known: TrialRecord) -> None:
        trial.set_user_attr(DUPLICATE, known.trial)
        self._tell(trial, known)


def stored_records(study: optuna.Study) -> list[TrialRecord]:
    """The records in a study's storage, by trial."""

    def has_record(trial: FrozenTrial) -> bool:
        return RECORD in trial.user_attrs

    trials = filter(has_record, study.get_trials(deepcopy=False))
    return [TrialRecord.from_json(trial.user_attrs[RECORD]) for trial in trials]
